//! XML signature: orders signed by a pass phrase or the key itself, with proof of possession; answers
//! taken only as the service's key signed them.

use xkms::{
    client::{Client, ServiceTrust, sign_order},
    dsig::{KeyError, PublicKey, SignaturePolicy, Signer},
    message::RequestBody,
    service::AuthenticationKey,
    soap::Version,
};

use crate::algorithms::{KeyFile, Phrase};

/// Who authorizes an order.
#[derive(Debug)]
pub enum Authorizer<'a> {
    /// Who knows the pass phrase.
    Phrase(&'a Phrase),
    /// The key that the binding is about.
    Key(&'a KeyFile),
}

/// Signs an order; with `possessed`, the key proves that it is there.
///
/// # Errors
/// [`KeyError`].
pub fn order(
    body: &mut RequestBody,
    by: &Authorizer<'_>,
    possessed: Option<&KeyFile>,
) -> Result<(), KeyError> {
    let possessed = possessed.map(|key| key.signer() as &dyn Signer);
    match by {
        Authorizer::Phrase(phrase) => sign_order(body, &phrase.authentication(), possessed),
        Authorizer::Key(key) => sign_order(body, key.signer(), possessed),
    }
}

/// A client of `service` that signs its messages as `asker`, if there is one, and takes what `key`
/// (SubjectPublicKeyInfo, DER) signed, and nothing else.
///
/// # Errors
/// [`KeyError::Malformed`] for a key that signs no answers.
pub fn client<'k>(
    service: &str,
    key: &[u8],
    asker: Option<&'k KeyFile>,
) -> Result<Client<'k>, KeyError> {
    let key = PublicKey::from_spki(key).ok_or(KeyError::Malformed)?;
    Ok(Client {
        service: service.to_owned(),
        version: Version::V12,
        signer: asker.map(|key| key.signer() as &dyn Signer),
        trust: ServiceTrust::Key(AuthenticationKey::Public(key)),
        signatures: SignaturePolicy::default(),
    })
}
