//! The process shell on real processes.

#[cfg(test)]
mod control;
#[cfg(test)]
mod https;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod process;
#[cfg(test)]
mod sandbox;
