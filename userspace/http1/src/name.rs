//! Field names and values that can hold only what may stand on the wire.
//!
//! Text from configuration or from another protocol enters here and nowhere else.

use crate::{Known, chars};

/// Longest name, in bytes: what the index of a block can hold.
const NAME_MAX: usize = u16::MAX as usize;

/// Not a token of RFC 9110 §5.6.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid field name")]
pub struct InvalidName;

/// Not a field value of RFC 9110 §5.5: a control character, or whitespace at an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid field value")]
pub struct InvalidValue;

/// A valid field name in any case. Equality ignores case.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    text: &'a [u8],
    known: Option<Known>,
}

impl<'a> Name<'a> {
    /// Checks `text`.
    ///
    /// # Errors
    /// When it is not a token.
    pub fn new(text: &'a [u8]) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > NAME_MAX || chars::token_end(text, 0) < text.len() {
            return Err(InvalidName);
        }
        Ok(Self {
            text,
            known: Known::of(text),
        })
    }

    /// A name written in the source.
    ///
    /// # Panics
    /// When it is not a token; in a `const`, that is a compile error.
    pub const fn from_static(text: &'static str) -> Name<'static> {
        let text = text.as_bytes();
        assert!(!text.is_empty() && text.len() <= NAME_MAX, "bad length of a field name");
        let mut at = 0;
        while at < text.len() {
            assert!(chars::is_token(text[at]), "not a valid field name");
            at += 1;
        }
        Name {
            text,
            known: Known::of_static(text),
        }
    }

    /// `text` and `known` come from an index that was checked when it was made.
    pub(crate) const fn indexed(text: &'a [u8], known: Option<Known>) -> Self {
        Self { text, known }
    }

    /// The bytes, in the case they came in.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.text
    }

    /// The number, when the name has one.
    pub const fn known(&self) -> Option<Known> {
        self.known
    }

    /// A copy that owns its text.
    pub fn to_owned(&self) -> OwnedName {
        OwnedName {
            text: self.text.into(),
            known: self.known,
        }
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Name<'_>) -> bool {
        match (self.known, other.known) {
            (None, None) => self.text.eq_ignore_ascii_case(other.text),
            (one, two) => one == two,
        }
    }
}

impl Eq for Name<'_> {}

impl From<Known> for Name<'static> {
    #[inline]
    fn from(known: Known) -> Self {
        Self {
            text: known.as_str().as_bytes(),
            known: Some(known),
        }
    }
}

impl<'a> From<&'a OwnedName> for Name<'a> {
    fn from(name: &'a OwnedName) -> Self {
        name.as_name()
    }
}

/// A [`Name`] that owns its text, for configuration.
#[derive(Debug, Clone)]
pub struct OwnedName {
    text: Box<[u8]>,
    known: Option<Known>,
}

impl OwnedName {
    /// The name, borrowed.
    pub const fn as_name(&self) -> Name<'_> {
        Name {
            text: &self.text,
            known: self.known,
        }
    }
}

impl PartialEq for OwnedName {
    fn eq(&self, other: &Self) -> bool {
        self.as_name() == other.as_name()
    }
}

impl Eq for OwnedName {}

/// A valid field value: no control character but HTAB, no whitespace at its ends. May be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// Checks `text`.
    ///
    /// # Errors
    /// When it is not a field value.
    pub fn new(text: &'a [u8]) -> Result<Self, InvalidValue> {
        let blank_end =
            text.first().is_some_and(|&b| chars::is_blank(b)) || text.last().is_some_and(|&b| chars::is_blank(b));
        if blank_end || chars::value_end(text, 0) < text.len() {
            return Err(InvalidValue);
        }
        Ok(Self(text))
    }

    /// Checks `text` without the whitespace around it.
    ///
    /// # Errors
    /// When it holds a control character.
    pub fn trimmed(text: &'a [u8]) -> Result<Self, InvalidValue> {
        Self::new(chars::trim(text))
    }

    /// A value written in the source.
    ///
    /// # Panics
    /// When it is not a field value; in a `const`, that is a compile error.
    pub const fn from_static(text: &'static str) -> Value<'static> {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() {
            let blank_end = chars::is_blank(text[at]) && (at == 0 || at + 1 == text.len());
            assert!(chars::is_value(text[at]) && !blank_end, "not a valid field value");
            at += 1;
        }
        Value(text)
    }

    /// `text` comes from a block that checked it.
    pub(crate) const fn checked(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// A copy that owns its text.
    pub fn to_owned(&self) -> OwnedValue {
        OwnedValue(self.0.into())
    }
}

impl<'a> From<&'a OwnedValue> for Value<'a> {
    fn from(value: &'a OwnedValue) -> Self {
        value.as_value()
    }
}

/// A [`Value`] that owns its text, for configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedValue(Box<[u8]>);

impl OwnedValue {
    /// The value, borrowed.
    pub const fn as_value(&self) -> Value<'_> {
        Value(&self.0)
    }
}
