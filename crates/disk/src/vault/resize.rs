//! Growing and shrinking the disk of an open volume. Requests wait meanwhile.

use std::{io, sync::atomic::Ordering};

use super::{
    engine::Engine,
    header::{SIZE_MAX, SLOT_BYTES, depth_for},
    node::{FAN, NodeId},
    page::{refused, volume_error},
    refs::Ref,
    tree::Shape,
    volume::VaultVolume,
};
use crate::{Rejection, VolumeError};

impl VaultVolume {
    /// Gives the disk another size, 1 byte to 8 TiB. What is added reads as zeros.
    ///
    /// # Errors
    /// [`Rejection::SizeInvalid`]; [`Rejection::ShrinkLosesData`] if what is cut off is not all
    /// null or zeros; or the medium's error, after which the volume must be opened anew.
    pub fn resize(&self, size: u64) -> Result<(), VolumeError> {
        if size == 0 || size > SIZE_MAX {
            return Err(Rejection::SizeInvalid { size, sector: 1 }.into());
        }
        self.engine.resize(size).map_err(volume_error("resize the volume"))
    }
}

impl Engine {
    fn resize(&self, size: u64) -> io::Result<()> {
        let mut shape = self.enter_alone();
        self.check_writable()?;
        let mut committer = self.committer();
        self.check_failed()?;
        if size < shape.size {
            self.check_cut(&shape, size)?;
        }
        self.checkpoint(&shape, &mut committer, &mut |_| Ok(()))?;
        // From here on memory and medium differ until the header is there.
        let done = self.reshape(&mut shape, size).and_then(|()| {
            self.slots().set_sectors(shape.sectors());
            self.checkpoint(&shape, &mut committer, &mut |_| Ok(()))
        });
        self.or_fail(done)?;
        self.size.store(size, Ordering::SeqCst);
        Ok(())
    }

    fn reshape(&self, shape: &mut Shape, size: u64) -> io::Result<()> {
        let depth = depth_for(size);
        shape.size = size;
        self.tree.forget();
        if depth > shape.depth {
            let top = NodeId { level: shape.depth, number: 0 };
            let root = self.tree.root();
            self.tree.set_root(Ref::NULL);
            shape.depth += 1;
            if !root.is_null() {
                self.tree.adopt(shape, top, root)?;
            }
            shape.depth = depth;
        }
        while shape.depth > depth {
            let top = self.tree.node(NodeId { level: shape.depth, number: 0 });
            let below = self.tree.look(shape, &top, |state| state.get(0))?;
            // The page above it is given up; its slot is found free at the next opening.
            self.tree.set_root(below);
            shape.depth -= 1;
            drop(top);
            self.tree.forget();
        }
        Ok(())
    }

    /// Refuses if anything behind `size` is not null, or not zeros in a sector that stays.
    fn check_cut(&self, shape: &Shape, size: u64) -> io::Result<()> {
        let stay = size.div_ceil(4096);
        let loses = || refused(Rejection::ShrinkLosesData);
        for leaf in stay / 128..shape.leaves() {
            let node = self.tree.node(NodeId { level: 1, number: leaf });
            let first = usize::try_from(stay.saturating_sub(leaf * 128)).unwrap_or(FAN);
            let null = self
                .tree
                .look(shape, &node, |state| state.refs().iter().skip(first).all(Ref::is_null))?;
            if !null {
                return Err(loses());
            }
        }
        let mut last = vec![0; SLOT_BYTES];
        self.read_sectors(shape, stay.saturating_sub(1), &mut last)?;
        let kept = usize::try_from(size.saturating_sub((stay - 1) * 4096)).unwrap_or(SLOT_BYTES);
        if last.iter().skip(kept).any(|&b| b != 0) { Err(loses()) } else { Ok(()) }
    }
}
