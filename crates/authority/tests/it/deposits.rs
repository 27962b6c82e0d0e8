//! Keys and key-management information that a VM's host makes, and deposits once.

use model::{
    KeyOrigin,
    api::{
        Bytes,
        grant::{DepositedKey, GrantPurpose, KeyDeposit},
        operate::Orders,
        vm::VmView,
    },
};
use serve::hpke::{self, HpkePublic};

use crate::{
    launch::{ask, define, open, refused, request, spec, start},
    support::Centre,
    vtpm::sha256,
};

#[test]
fn a_key_that_the_host_generates_is_deposited_once() {
    let centre = Centre::start();
    let host = centre.host("a").session().unwrap();
    define(&centre, "v1", KeyOrigin::Tpm);
    let operation = start(&centre, "v1", "a").unwrap();
    let orders: Orders = host.caller.get("/v1/orders").unwrap();
    assert!(orders.orders[0].deposit);
    let boot = request(operation.id, GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&host, "v1", &boot)), "key-awaited");
    let deposit = |key: &[u8], info: &str| {
        let to = HpkePublic(orders.deposit_key.0.clone());
        let sealed = hpke::seal(&to, info.as_bytes(), b"", key).unwrap();
        let (enc, sealed) = (Bytes(sealed.enc), Bytes(sealed.ciphertext));
        let body = KeyDeposit {
            operation: operation.id,
            key: Some(DepositedKey { enc, sealed }),
            key_id: None,
        };
        host.caller.post::<()>("/v1/vms/v1/key", &body)
    };
    let info = "vouchsafe:vmk-deposit:v1:v1";
    assert_eq!(refused(deposit(&[7; 32], "vouchsafe:vmk-deposit:v1:v2")), "request-invalid");
    assert_eq!(refused(deposit(&[7; 31], info)), "request-invalid");
    deposit(&[7; 32], info).unwrap();
    deposit(&[7; 32], info).unwrap();
    assert_eq!(refused(deposit(&[8; 32], info)), "key-already-deposited");
    let orders: Orders = host.caller.get("/v1/orders").unwrap();
    assert!(!orders.orders[0].deposit);
    open(&centre, &host, &ask(&host, "v1", &boot).unwrap());
    assert_eq!(refused(deposit(&[7; 32], info)), "key-already-deposited");
}

#[test]
fn a_kmi_that_the_host_makes_is_taken_once_and_names_the_key() {
    let centre = Centre::start();
    let a = centre.host("a");
    let host = a.session().unwrap();
    let mut wish = spec("v1", KeyOrigin::Console);
    wish["kmi_origin"] = "tcb".into();
    let _: VmView = centre.operator().post("/v1/vms", &wish).unwrap();
    let operation = start(&centre, "v1", "a").unwrap();
    let boot = request(operation.id, GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&host, "v1", &boot)), "key-awaited");
    let orders: Orders = host.caller.get("/v1/orders").unwrap();
    assert!(orders.orders[0].deposit);
    let deposit = |key: Option<DepositedKey>, key_id| {
        let body = KeyDeposit { operation: operation.id, key, key_id };
        host.caller.post::<()>("/v1/vms/v1/key", &body)
    };
    let brought = DepositedKey { enc: Bytes(vec![1]), sealed: Bytes(vec![2]) };
    assert_eq!(refused(deposit(None, None)), "request-invalid");
    assert_eq!(refused(deposit(Some(brought), Some(sha256(b"kmi")))), "request-invalid");
    deposit(None, Some(sha256(b"kmi"))).unwrap();
    deposit(None, Some(sha256(b"kmi"))).unwrap();
    assert_eq!(refused(deposit(None, Some(sha256(b"other")))), "key-already-deposited");
    let boot = request(operation.id, GrantPurpose::Boot, 1);
    let (grant, keys) = open(&centre, &host, &ask(&host, "v1", &boot).unwrap());
    assert_eq!((grant.info.kmi.key_id, keys.len()), (sha256(b"kmi"), 4 * 32));
    assert_eq!(refused(deposit(None, Some(sha256(b"kmi")))), "key-already-deposited");
    // One that is named after its VM needs no deposit.
    let mut wish = spec("v2", KeyOrigin::Console);
    wish["kmi_origin"] = "vm-id".into();
    let view: VmView = centre.operator().post("/v1/vms", &wish).unwrap();
    assert_eq!(view.kmi.key_id, sha256(b"vouchsafe:kmi:v1:v2"));
}
