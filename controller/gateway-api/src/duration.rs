//! Durations as GEP-2257 writes them.

use std::{fmt, time};

use serde::{Deserialize, Serialize};

/// A duration text: one to four of `h`, `m`, `s`, `ms`, each with one to five digits, no fractions, no sign.
///
/// The text is kept as written; [`Duration::parse`] gives its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

/// A text that GEP-2257 does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDuration(pub String);

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a duration: write one to four numbers of at most five digits, each followed by h, m, s or ms",
            self.0
        )
    }
}

impl std::error::Error for InvalidDuration {}

impl Duration {
    /// # Errors
    /// When the text does not match `^([0-9]{1,5}(h|m|s|ms)){1,4}$` (GEP-2257).
    pub fn parse(&self) -> Result<time::Duration, InvalidDuration> {
        let bad = || InvalidDuration(self.0.clone());
        let mut rest = self.0.as_str();
        let mut total = time::Duration::ZERO;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            parts += 1;
            if digits == 0 || digits > 5 || parts > 4 {
                return Err(bad());
            }
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| bad())?;
            let (unit, tail) = tail.split_at(tail.bytes().take_while(u8::is_ascii_alphabetic).count());
            total += match unit {
                "h" => time::Duration::from_secs(number * 3600),
                "m" => time::Duration::from_secs(number * 60),
                "s" => time::Duration::from_secs(number),
                "ms" => time::Duration::from_millis(number),
                _ => return Err(bad()),
            };
            rest = tail;
        }
        if parts == 0 { Err(bad()) } else { Ok(total) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_gep_2257() {
        for (text, millis) in [
            ("0h", 0),
            ("0s", 0),
            ("0h0m0s", 0),
            ("1h", 3_600_000),
            ("30m", 1_800_000),
            ("10s", 10_000),
            ("500ms", 500),
            ("2h30m", 9_000_000),
            ("150m", 9_000_000),
            ("7230s", 7_230_000),
            ("1h30m10s", 5_410_000),
            ("10s30m1h", 5_410_000),
            ("100ms200ms300ms", 600),
        ] {
            assert_eq!(
                Duration(text.to_owned()).parse(),
                Ok(time::Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "1",
            "1m1",
            "1h30m10s20ms50h",
            "999999h",
            "1.5h",
            "-15m",
            "1us",
            " 1s",
            "1s ",
            "s",
            "1 s",
            "1M",
        ] {
            assert!(Duration(text.to_owned()).parse().is_err(), "{text}");
        }
    }
}
