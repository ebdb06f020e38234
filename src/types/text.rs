//! What names have in common: a text that was checked when it was made.

/// Gives a type over one `String`, whose `new` checks it, what every such name has: its text, `Display`, `FromStr`, and the
/// conversions that serde goes by.
macro_rules! text_name {
    ($name:ty, $bad:ty) => {
        impl $name {
            /// The name's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                out.pad(&self.0)
            }
        }

        impl core::str::FromStr for $name {
            type Err = $bad;

            fn from_str(text: &str) -> Result<Self, $bad> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $bad;

            fn try_from(text: String) -> Result<Self, $bad> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

pub(crate) use text_name;
