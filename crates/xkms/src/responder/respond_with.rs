//! `RespondWith`: an answer carries what was asked for, where it is there.

use crate::message::{Binding, KeyInfo, KeyInfoItem, RespondWith, X509Item};

/// Keeps in `binding` what `wanted` names; whether something wanted is missing. Nothing wanted
/// leaves it as it is.
pub(super) fn select(binding: &mut Binding, wanted: &[RespondWith]) -> bool {
    let kinds: Vec<&RespondWith> =
        wanted.iter().filter(|w| **w != RespondWith::PrivateKey).collect();
    if wanted.is_empty() {
        return false;
    }
    let mut info = binding.key_info.take().unwrap_or_default();
    let missing = kinds.iter().any(|kind| !has(&info, kind));
    info.items = info.items.into_iter().filter_map(|item| keep(item, &kinds)).collect();
    binding.key_info = (!info.items.is_empty()).then_some(info);
    missing
}

fn has(info: &KeyInfo, kind: &RespondWith) -> bool {
    info.items.iter().any(|item| keep(item.clone(), &[kind]).is_some())
}

fn keep(item: KeyInfoItem, kinds: &[&RespondWith]) -> Option<KeyInfoItem> {
    let wants = |kind: RespondWith| kinds.contains(&&kind);
    let wanted = match &item {
        KeyInfoItem::KeyName(_) => wants(RespondWith::KeyName),
        KeyInfoItem::KeyValue(_) => wants(RespondWith::KeyValue),
        KeyInfoItem::RetrievalMethod { .. } => wants(RespondWith::RetrievalMethod),
        KeyInfoItem::Pgp { .. } => wants(RespondWith::Pgp) || wants(RespondWith::PgpWeb),
        KeyInfoItem::Spki(_) => wants(RespondWith::Spki),
        KeyInfoItem::Foreign(_) => false,
        KeyInfoItem::X509(items) => return x509(items, &wants),
    };
    wanted.then_some(item)
}

fn x509(items: &[X509Item], wants: &dyn Fn(RespondWith) -> bool) -> Option<KeyInfoItem> {
    let (chain, leaf) = (wants(RespondWith::X509Chain), wants(RespondWith::X509Cert));
    let mut first = true;
    let kept: Vec<X509Item> = items
        .iter()
        .filter(|item| match item {
            X509Item::Certificate(_) => chain || (leaf && std::mem::take(&mut first)),
            X509Item::Crl(_) => wants(RespondWith::X509Crl),
            X509Item::IssuerSerial { .. } | X509Item::Ski(_) | X509Item::SubjectName(_) => false,
        })
        .cloned()
        .collect();
    (!kept.is_empty()).then_some(KeyInfoItem::X509(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> KeyInfo {
        let certificate = |n| X509Item::Certificate(vec![n]);
        let data =
            vec![certificate(1), certificate(2), X509Item::Crl(vec![3]), X509Item::Ski(vec![4])];
        let pgp = KeyInfoItem::Pgp { key_id: Some(vec![1]), packet: None };
        KeyInfo {
            items: vec![
                KeyInfoItem::KeyName("n".into()),
                KeyInfoItem::X509(data),
                pgp,
                KeyInfoItem::Spki(vec![vec![1]]),
                KeyInfoItem::RetrievalMethod { uri: None, kind: None },
            ],
        }
    }

    fn selected(wanted: &[RespondWith]) -> (Vec<KeyInfoItem>, bool) {
        let mut binding = Binding { key_info: Some(info()), ..Binding::default() };
        let missing = select(&mut binding, wanted);
        (binding.key_info.map(|i| i.items).unwrap_or_default(), missing)
    }

    #[test]
    fn every_kind_that_the_schema_names_selects_its_own() {
        use RespondWith as W;
        assert_eq!(selected(&[]), (info().items, false));
        let x509 = |items| vec![KeyInfoItem::X509(items)];
        let certificate = |n| X509Item::Certificate(vec![n]);
        assert_eq!(selected(&[W::KeyName]), (vec![KeyInfoItem::KeyName("n".into())], false));
        assert_eq!(selected(&[W::X509Cert]), (x509(vec![certificate(1)]), false));
        assert_eq!(selected(&[W::X509Chain]), (x509(vec![certificate(1), certificate(2)]), false));
        assert_eq!(selected(&[W::X509Crl]), (x509(vec![X509Item::Crl(vec![3])]), false));
        assert_eq!(selected(&[W::Pgp]).0, selected(&[W::PgpWeb]).0);
        assert_eq!(selected(&[W::Spki]).0.len(), 1);
        assert_eq!(selected(&[W::RetrievalMethod]).0.len(), 1);
        assert_eq!(selected(&[W::KeyValue]), (vec![], true));
        assert!(selected(&[W::KeyName, W::KeyValue]).1);
        assert_eq!(selected(&[W::PrivateKey]), (vec![], false));
        assert_eq!(selected(&[W::Other("urn:x".into())]), (vec![], true));
    }
}
