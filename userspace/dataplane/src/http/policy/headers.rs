//! Request and response header modifiers.

use pierhead_http1::{Headers, Name, OwnedName, OwnedValue, Value};
use pierhead_model::HeaderModifier;

/// A modifier whose names are looked up already.
#[derive(Debug, Default)]
pub(crate) struct Modifier {
    remove: Box<[OwnedName]>,
    set: Box<[(OwnedName, OwnedValue)]>,
    add: Box<[(OwnedName, OwnedValue)]>,
}

impl Modifier {
    pub(crate) fn compile(model: &HeaderModifier) -> Self {
        // The model holds only valid names and values; what could not be written is left out, never written wrong.
        let name = |text: &pierhead_model::HeaderName| Name::new(text.as_str().as_bytes()).ok().map(|n| n.to_owned());
        let lines = |pairs: &[(pierhead_model::HeaderName, pierhead_model::HeaderValue)]| {
            let pairs = pairs.iter().filter_map(|(key, value)| {
                let value = Value::trimmed(value.as_str().as_bytes()).ok()?.to_owned();
                Some((name(key)?, value))
            });
            pairs.collect()
        };
        Self {
            remove: model.remove.iter().filter_map(name).collect(),
            set: lines(&model.set),
            add: lines(&model.add),
        }
    }

    /// Removes first, so that what is set or added stands. `add` makes a line of its own, never a joined one.
    pub(crate) fn apply(&self, headers: &mut Headers) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.set(name, value.as_value());
        }
        for (name, value) in &self.add {
            headers.append(name, value.as_value());
        }
    }
}

#[cfg(test)]
mod tests {
    use pierhead_model::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.append(
                Name::new(name.as_bytes()).unwrap(),
                Value::new(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn pairs(lines: &[(&str, &str)]) -> Vec<(HeaderName, HeaderValue)> {
        let parse = |(n, v): &(&str, &str)| (HeaderName::parse(n).unwrap(), HeaderValue::parse(v).unwrap());
        lines.iter().map(parse).collect()
    }

    #[test]
    fn set_replaces_add_appends_a_line_and_remove_ignores_case() {
        let modifier = Modifier::compile(&HeaderModifier {
            set: pairs(&[("X-Set", "new"), ("X-Fresh", "1")]),
            add: pairs(&[("X-Add", "two")]),
            remove: vec![HeaderName::parse("x-gone").unwrap()],
        });
        let mut block = headers(&[
            ("X-Gone", "a"),
            ("x-set", "old"),
            ("X-SET", "older"),
            ("x-add", "one"),
            ("X-GONE", "b"),
        ]);
        modifier.apply(&mut block);
        let expected = headers(&[("X-Set", "new"), ("x-add", "one"), ("X-Fresh", "1"), ("X-Add", "two")]);
        assert_eq!(block, expected);
    }

    #[test]
    fn what_is_removed_and_set_stands() {
        let modifier = Modifier::compile(&HeaderModifier {
            set: pairs(&[("x-a", "set")]),
            add: Vec::new(),
            remove: vec![HeaderName::parse("X-A").unwrap()],
        });
        let mut block = headers(&[("X-A", "client")]);
        modifier.apply(&mut block);
        assert_eq!(block, headers(&[("x-a", "set")]));
    }
}
