//! Counters of services' stores, in the same table: `@service/store`, which no volume's name is.

use model::{Secret, api::service::Service};

use super::{Anchors, table::Count};
use crate::trouble::Trouble;

/// The most that the table has: stores of services that are gone stay in it.
const MOST: usize = 64;
/// What their names begin with.
const MARK: char = '@';

/// What the store of a service is called in the table.
pub(crate) fn name(service: Service, store: &[u8; 16]) -> String {
    format!("{MARK}{service}/{}", hex::encode(store))
}

impl Anchors {
    /// The count of a store; it begins at 0 if the table does not know it.
    ///
    /// # Errors
    /// Refused as `counters-full` if there are too many.
    pub(crate) async fn begin_store(
        &self,
        key: &Secret<Vec<u8>>,
        name: &str,
    ) -> Result<u64, Trouble> {
        let mut count = None;
        self.change(key, |table| {
            let stores = table.volumes.keys().filter(|name| name.starts_with(MARK)).count();
            count = table.volumes.get(name).copied();
            let begins = count.is_none() && stores < MOST;
            if begins {
                table.volumes.insert(name.to_owned(), 0);
                count = Some(0);
            }
            begins
        })
        .await?;
        count.ok_or_else(|| {
            Trouble::refused(
                "counters-full",
                format!("this host keeps {MOST} counters of services' stores already"),
                "is something making store after store?",
            )
        })
    }

    /// Counts a store on if it is at `from`; where it is then.
    ///
    /// # Errors
    /// [`Trouble`]; whether it was counted on is unknown then.
    pub(crate) async fn advance_store(
        &self,
        key: &Secret<Vec<u8>>,
        name: &str,
        from: u64,
    ) -> Result<u64, Trouble> {
        let count = Count { name: name.to_owned(), from, head: None };
        self.increment(key, &[count]).await?;
        self.count(key, name).await
    }
}
