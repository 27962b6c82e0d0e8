//! What the table says of a VM's volumes, for the authority's record.

use model::{Epoch, Secret, VmId};
use tokio::sync::watch;

use super::{Anchors, name, table::Head};
use crate::{plan::Volume, trouble::Trouble};

/// A volume's count and the header behind it; both are covered by the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The volume.
    pub(crate) volume: Volume,
    /// Its count.
    pub(crate) count: u64,
    /// The header.
    pub(crate) head: Head,
}

impl Anchors {
    /// Changes whenever the table does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How a VM's volumes stand. A host without a table is not made to have one.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn standing(
        &self,
        key: &Secret<Vec<u8>>,
        vm: &VmId,
        epoch: Epoch,
    ) -> Result<Vec<Standing>, Trouble> {
        if !self.file.exists() {
            return Ok(Vec::new());
        }
        self.look(key, |table| {
            let of = |volume| {
                let name = name(vm, epoch, volume);
                let (count, head) = table.volumes.get(&name).zip(table.heads.get(&name))?;
                Some(Standing { volume, count: *count, head: *head })
            };
            [Volume::Boot, Volume::Data].into_iter().filter_map(of).collect()
        })
        .await
    }
}
