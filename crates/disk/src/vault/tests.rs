//! The engine against models, faults and forgeries, on a medium in memory.

mod basic;
mod faults;
mod features;
mod memory;
mod model_check;
mod slots;
mod tamper;
