//! What a profile asks of a foreign CA: the subject and the extensions that our own CA would write.

use rcgen::{CertificateParams, Issuer, SubjectPublicKeyInfo};
use x509_cert::{
    Certificate,
    ext::{Extension, pkix},
    name::Name,
};

use crate::{
    IssueError, Profile,
    ca::{CaKey, kind_of},
};

/// Subject and extensions of a certificate of this profile.
pub(super) fn of(profile: &Profile, spki: &[u8]) -> Result<(Name, Vec<Extension>), IssueError> {
    use der::{Decode as _, oid::AssociatedOid as _};

    let kind = kind_of(spki).ok_or(IssueError::SubjectKey)?;
    let subject = SubjectPublicKeyInfo::from_der(spki).map_err(|_| IssueError::SubjectKey)?;
    // A certificate of a key that is forgotten at once says what would be in it.
    let (key, _) = CaKey::generate()?;
    let issuer = Issuer::new(CertificateParams::default(), key);
    let sample = profile.params(kind)?.signed_by(&subject, &issuer);
    let sample = sample.map_err(IssueError::building)?;
    let sample = Certificate::from_der(sample.der()).map_err(IssueError::Encode)?;
    let body = sample.tbs_certificate();
    let of_issuer = [
        pkix::AuthorityKeyIdentifier::OID,
        pkix::SubjectKeyIdentifier::OID,
        pkix::BasicConstraints::OID,
    ];
    let extensions = body.extensions().map(Vec::as_slice).unwrap_or_default();
    let extensions = extensions.iter().filter(|one| !of_issuer.contains(&one.extn_id));
    Ok((body.subject().clone(), extensions.cloned().collect()))
}
