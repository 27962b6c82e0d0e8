//! The form of a service's refusals: one table, a line each.

/// Makes the enumeration `Refusal`: each rule with its name, a word for whoever asked (of the kind
/// that is named first), what it says, and what an operator can do.
///
/// ```
/// journal::refusals! {
///     /// What the client is told.
///     answer: u16;
///
///     /// Nobody is there.
///     NobodyThere, "nobody-there", MAX, "nobody is there", "come again later";
/// }
/// assert_eq!(Refusal::NobodyThere.name(), "nobody-there");
/// assert_eq!(Refusal::NobodyThere.answer(), u16::MAX);
/// assert_eq!(Refusal::ALL.len(), 1);
/// ```
#[macro_export]
macro_rules! refusals {
    (
        $(#[$said:meta])* $answer:ident: $kind:ty;
        $($(#[$doc:meta])* $name:ident, $code:literal, $word:ident, $says:literal, $hint:literal;)*
    ) => {
        /// The rule that said no.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ::thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($says)] $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Kebab-case name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            $(#[$said])*
            #[must_use]
            pub const fn $answer(self) -> $kind {
                match self { $(Self::$name => <$kind>::$word,)* }
            }

            /// What an operator can do.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }
        }
    };
}
