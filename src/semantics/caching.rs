//! What Cache-Control says (RFC 9111 section 5.2).

/// Whether a value of Cache-Control says that the content never changes (RFC 8246).
pub fn is_immutable(cache_control: &[u8]) -> bool {
    cache_control
        .split(|byte| !byte.is_ascii_alphanumeric())
        .any(|word| word.eq_ignore_ascii_case(b"immutable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directive_stands_alone_whatever_its_case() {
        for (value, want) in [
            ("max-age=31536000, immutable", true),
            ("Immutable,max-age=1", true),
            ("immutable", true),
            ("max-age=0, must-revalidate", false),
            ("x-immutables", false),
            ("", false),
        ] {
            assert_eq!(is_immutable(value.as_bytes()), want, "{value}");
        }
    }
}
