//! Real QEMU.
