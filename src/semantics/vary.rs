//! Vary (RFC 9110 12.5.5): which fields of a request the choice of the response depends on.

use http::HeaderValue;

use super::members;

/// The value of Vary for a response whose choice depends on these request fields, and on those that the
/// rules of the site name in a value of their own. Each is named once; `*` stands for everything, and
/// then alone. `None` where the choice depends on none.
#[must_use]
pub fn vary<'n>(
    chosen_by: impl IntoIterator<Item = &'n str>,
    ruled: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    let ruled = ruled.map_or(&b""[..], HeaderValue::as_bytes);
    if members(ruled).any(|name| name == b"*") {
        return Some(HeaderValue::from_static("*"));
    }
    let mut value = Vec::new();
    for name in chosen_by.into_iter().map(str::as_bytes) {
        if !members(ruled).any(|other| other.eq_ignore_ascii_case(name)) {
            add(&mut value, name);
        }
    }
    if !ruled.is_empty() {
        add(&mut value, ruled);
    }
    // All of it is from values of fields, and so is one.
    let value = HeaderValue::from_bytes(&value).ok();
    value.filter(|value| !value.is_empty())
}

fn add(list: &mut Vec<u8>, members: &[u8]) {
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(members);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_named_once() {
        for (chosen_by, ruled, expected) in [
            (&[][..], None, None),
            (&["a"], None, Some("a")),
            (&["a", "b"], None, Some("a, b")),
            (&[], Some("X"), Some("X")),
            (&["a", "b"], Some("X, Y"), Some("a, b, X, Y")),
            (&["a", "b"], Some("A,X"), Some("b, A,X")),
            (&["a"], Some(" a "), Some(" a ")),
            (&["a", "b"], Some("*"), Some("*")),
            (&["a"], Some("X, *"), Some("*")),
            (&[], Some("*, X"), Some("*")),
        ] {
            let ruled = ruled.map(HeaderValue::from_static);
            let value = vary(chosen_by.iter().copied(), ruled.as_ref());
            let value = value.as_ref().map(|value| value.to_str().expect("ASCII"));
            assert_eq!(value, expected, "{chosen_by:?}, {ruled:?}");
        }
    }
}
