//! Vary (RFC 9110 12.5.5): which fields of a request the choice of the response depends on.

use http::HeaderValue;

use super::members;

/// The names in a value of Vary, each of them once. `*` stands for everything, and then alone.
#[derive(Clone, Debug, Default)]
pub struct Vary(Vec<u8>);

impl Vary {
    /// Adds the names in a list, those that are there already left out.
    pub fn add(&mut self, names: &[u8]) {
        for name in members(names) {
            if name == b"*" {
                self.0 = name.to_vec();
            }
            let is_known = |known: &[u8]| known == b"*" || known.eq_ignore_ascii_case(name);
            if members(&self.0).any(is_known) {
                continue;
            }
            if !self.0.is_empty() {
                self.0.extend_from_slice(b", ");
            }
            self.0.extend_from_slice(name);
        }
    }

    /// The value of the field; `None` if it names nothing, or what no field can have.
    #[must_use]
    pub fn value(&self) -> Option<HeaderValue> {
        match &*self.0 {
            [] => None,
            names => HeaderValue::from_bytes(names).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_named_once() {
        for (lists, expected) in [
            (&[][..], None),
            (&[""], None),
            (&[" , "], None),
            (&["a"], Some("a")),
            (&["a", "b"], Some("a, b")),
            (&["a", "b", "X,Y"], Some("a, b, X, Y")),
            (&["a", "b", "A , X, x"], Some("a, b, X")),
            (&["", "a"], Some("a")),
            (&["a", "*"], Some("*")),
            (&["a", "X, *, b"], Some("*")),
            (&["*", "a"], Some("*")),
            (&["a*"], Some("a*")),
        ] {
            let mut vary = Vary::default();
            for list in lists {
                vary.add(list.as_bytes());
            }
            let value = vary.value();
            let value = value.as_ref().map(|value| value.to_str().expect("ASCII"));
            assert_eq!(value, expected, "{lists:?}");
        }
    }
}
