//! Encryption: what is delivered opens whole, and each refusal has its name.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};

use super::*;
use crate::{
    passphrase::{Preparation, SharedSecret},
    xml::{Document, Limits},
};

fn key() -> Secret<Vec<u8>> {
    SharedSecret::new("Shared Secret", Preparation::Saslprep).unwrap().private_key_key(32)
}

fn read(text: &str) -> Result<EncryptedData, EncryptionRejection> {
    EncryptedData::read(Document::parse(text.as_bytes(), &Limits::MESSAGE).unwrap().root())
}

#[test]
fn a_private_key_is_delivered_whole() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pair = RsaKeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    for (cipher, wrap) in
        [(Cipher::Aes256Gcm, false), (Cipher::Aes256Gcm, true), (Cipher::Aes256Cbc, false)]
    {
        let data = EncryptedData::seal(&pair.to_xml(), &key(), cipher, wrap, Some("k")).unwrap();
        let data = read(&data.to_element().to_xml()).unwrap();
        assert_eq!(data.key_name(), Some("k"));
        let plain = data.open(&key(), EncryptionPolicy { cbc: true }).unwrap();
        let again = RsaKeyPair::from_xml(&plain).unwrap().to_pkcs1();
        let signer = KeyPair::from_der(again.expose()).unwrap();
        assert_eq!(signer.public_modulus_len(), 256);
        let other = Secret::new(vec![7; 32]);
        let wrong = data
            .open(&other, EncryptionPolicy { cbc: true })
            .map(|p| RsaKeyPair::from_xml(&p).is_ok());
        assert!(!wrong.unwrap_or(false));
    }
}

#[test]
fn what_is_not_accepted_has_its_name() {
    use EncryptionRejection as R;
    let plain = Secret::new(b"<a/>".to_vec());
    let cbc = EncryptedData::seal(&plain, &key(), Cipher::Aes256Cbc, false, None).unwrap();
    assert_eq!(cbc.open(&key(), EncryptionPolicy::default()).err(), Some(R::Algorithm));
    let gcm = EncryptedData::seal(&plain, &key(), Cipher::Aes256Gcm, true, None).unwrap();
    assert_eq!(
        gcm.open(&Secret::new(vec![0; 16]), EncryptionPolicy::default()).err(),
        Some(R::KeyLength)
    );
    assert_eq!(
        gcm.open(&Secret::new(vec![0; 32]), EncryptionPolicy::default()).err(),
        Some(R::Key)
    );
    let opened = gcm.open(&key(), EncryptionPolicy::default()).unwrap();
    assert_eq!(RsaKeyPair::from_xml(&opened).err(), Some(R::Plaintext));
    assert_eq!(
        RsaKeyPair::from_xml(&Secret::new(b"<a".to_vec())).err(),
        Some(R::Xml(XmlRejection::Malformed))
    );
    let text = gcm.to_element().to_xml();
    assert_eq!(read(&text.replace("kw-aes256", "kw-tripledes")).err(), Some(R::Algorithm));
    assert_eq!(read(&text.replace("CipherValue", "CipherReference")).err(), Some(R::Malformed));
    assert_eq!(read("<a/>").err(), Some(R::Malformed));
}
