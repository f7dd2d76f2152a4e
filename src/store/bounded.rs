//! Lists and maps in JSON that have a limit: what somebody else has written must not take up all memory,
//! and the shortest element of a list takes up eight times as much there as in its text.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads a list of at most `MAX` elements.
pub(super) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// Reads a map of at most `MAX` members.
pub(super) fn map<'de, D, T, const MAX: usize>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_map(BoundedMap::<T, MAX>(PhantomData))
}

struct Bounded<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

struct BoundedMap<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedMap<T, MAX> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of at most {MAX} members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            if map.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            map.insert(name, value);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        #[serde(default, deserialize_with = "list::<_, _, 2>")]
        list: Vec<u8>,
        #[serde(default, deserialize_with = "map::<_, _, 2>")]
        map: BTreeMap<String, u8>,
    }

    #[test]
    fn one_too_many_is_refused() {
        let read = |text: &str| serde_json::from_str::<Sample>(text);
        let sample = read(r#"{"list":[1,2],"map":{"a":1,"b":2}}"#).expect("not too many");
        assert_eq!((sample.list.len(), sample.map.len()), (2, 2));
        for (text, says) in [
            (r#"{"list":[1,2,3]}"#, "a list of at most 2 elements"),
            (
                r#"{"map":{"a":1,"b":2,"c":3}}"#,
                "a map of at most 2 members",
            ),
        ] {
            let error = read(text).expect_err("too many").to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
