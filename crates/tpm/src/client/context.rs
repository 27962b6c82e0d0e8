//! Transient slots: flushing, saving and loading contexts, making room, persistent objects.
//!
//! A TPM has as few as three transient slots. Where others (a guest) hold them all, their last
//! object is saved and flushed while our commands run and loaded again at the end of the scope. It
//! comes back under the same handle, because its slot is the only free one; where it is not, slots
//! below are filled for a moment.

use tpm2_protocol::data::TpmCc;

use super::{Command, Entity, Hierarchy, Object, Tpm};
use crate::{
    auth::Auth,
    error::{Malformed, TpmError},
    public::Public,
    wire::{Reader, Writer},
};

/// A saved object or session (TPMS_CONTEXT); opaque, bound to its TPM and its reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedContext {
    handle: u32,
    bytes: Vec<u8>,
}

const TRANSIENT_FIRST: u32 = 0x8000_0000;

impl Tpm {
    /// Flushes a transient object before its scope ends.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn flush(&mut self, object: &Object) -> Result<(), TpmError> {
        self.close(object.handle())
    }

    pub(super) fn close(&mut self, handle: u32) -> Result<(), TpmError> {
        self.open.retain(|open| *open != handle);
        self.flush_handle(handle)
    }

    /// TPM2_FlushContext. The handle is a parameter there, and needs no authorization.
    pub(super) fn flush_handle(&mut self, handle: u32) -> Result<(), TpmError> {
        let mut parameters = Writer::small();
        parameters.u32(handle);
        self.execute(Command::plain(TpmCc::FlushContext, &[], parameters)?).map(|_| ())
    }

    /// TPM2_ContextSave of an object; it stays loaded.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn save_context(&mut self, object: &Object) -> Result<SavedContext, TpmError> {
        self.save_handle(object.handle())
    }

    fn save_handle(&mut self, handle: u32) -> Result<SavedContext, TpmError> {
        let handles = [Entity::bare(handle)];
        let command = Command::plain(TpmCc::ContextSave, &handles, Writer::small())?;
        let response = self.execute(command)?;
        Ok(SavedContext { handle, bytes: response.parameters.to_vec() })
    }

    /// TPM2_ContextLoad of an object saved before; `public` is what it was.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn load_context(
        &mut self,
        saved: &SavedContext,
        public: Public,
    ) -> Result<Object, TpmError> {
        let handle = self.load_saved(saved)?;
        self.open.push(handle);
        Ok(Object::new(handle, public))
    }

    fn load_saved(&mut self, saved: &SavedContext) -> Result<u32, TpmError> {
        let mut parameters = Writer::new();
        parameters.bytes(&saved.bytes);
        let command = Command::plain(TpmCc::ContextLoad, &[], parameters)?.returning(1);
        self.execute(command)?.handle()
    }

    /// Displaces the last transient object that is not ours. False if there is none.
    pub(super) fn make_room(&mut self) -> Result<bool, TpmError> {
        let foreign = self.transient_handles()?;
        let Some(handle) = foreign.into_iter().rev().find(|h| !self.open.contains(h)) else {
            return Ok(false);
        };
        let saved = self.save_handle(handle)?;
        self.flush_handle(handle)?;
        self.displaced.push(saved);
        Ok(true)
    }

    /// Loads displaced objects again, the last displaced first.
    pub(super) fn put_back(&mut self) -> Result<(), TpmError> {
        let mut outcome = Ok(());
        while let Some(saved) = self.displaced.pop() {
            outcome = outcome.and(self.put_back_one(&saved));
        }
        outcome
    }

    fn put_back_one(&mut self, saved: &SavedContext) -> Result<(), TpmError> {
        let mut fillers = Vec::new();
        let mut found = false;
        // The TPM takes the first free slot, and the wanted one is free: at most all lower slots
        // are free too.
        while !found && fillers.len() < 16 {
            match self.load_saved(saved)? {
                handle if handle == saved.handle => found = true,
                filler => fillers.push(filler),
            }
        }
        for filler in fillers {
            self.flush_handle(filler)?;
        }
        if found { Ok(()) } else { Err(TpmError::Displaced { handle: saved.handle }) }
    }

    /// The transient objects in the TPM (as this connection may see them), by handle.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn transient_handles(&mut self) -> Result<Vec<u32>, TpmError> {
        self.handles_from(TRANSIENT_FIRST)
    }

    /// The persistent objects, by handle.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn persistent_handles(&mut self) -> Result<Vec<u32>, TpmError> {
        self.handles_from(0x8100_0000)
    }

    fn handles_from(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        let bytes = self.get_capability(0x0000_0001, first, 64)?;
        let malformed = TpmError::malformed("TPML_HANDLE");
        let mut reader = Reader::new(&bytes);
        let count = reader.u32().map_err(&malformed)?;
        if count > 64 {
            return Err(malformed(Malformed::TooLong));
        }
        (0..count).map(|_| reader.u32().map_err(&malformed)).collect()
    }

    /// TPM2_EvictControl: makes a transient object persistent at `persistent`, and returns it as it
    /// is there. `hierarchy` is the owner below 0x81800000 and the platform from there on.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn persist(
        &mut self,
        hierarchy: Hierarchy,
        auth: Auth<'_>,
        object: &Object,
        persistent: u32,
    ) -> Result<Object, TpmError> {
        self.evict_control(hierarchy, auth, object, persistent)?;
        Ok(Object::new(persistent, object.public().clone()))
    }

    /// TPM2_EvictControl: removes a persistent object.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn evict(
        &mut self,
        hierarchy: Hierarchy,
        auth: Auth<'_>,
        object: &Object,
    ) -> Result<(), TpmError> {
        self.evict_control(hierarchy, auth, object, object.handle())
    }

    fn evict_control(
        &mut self,
        hierarchy: Hierarchy,
        auth: Auth<'_>,
        object: &Object,
        persistent: u32,
    ) -> Result<(), TpmError> {
        let mut parameters = Writer::small();
        parameters.u32(persistent);
        let handles = [hierarchy.into(), object.entity()];
        let mut auths = [auth];
        let command = Command::authorized(TpmCc::EvictControl, &handles, parameters, &mut auths)?;
        self.execute(command).map(|_| ())
    }
}
