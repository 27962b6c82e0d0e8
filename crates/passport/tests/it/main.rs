//! Two services meet over TLS, with passports of a test CA.

#[cfg(test)]
mod meet;
