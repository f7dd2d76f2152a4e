//! Hosts as rule files write them: `example.com`, `*.example.com`, `:branch.example.com`.

/// A pattern for the host of a request, without a port. Letters stand for either case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Host {
    labels: Box<[Label]>,
    text: Box<str>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Label {
    Literal(Box<str>),
    /// A placeholder: any one label.
    Any,
    /// A `*` at the beginning: one label or more; elsewhere one.
    Many,
}

impl Host {
    /// Reads a host.
    ///
    /// # Errors
    /// The reason why no host could be meant.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.rsplit(':').next().is_some_and(is_number) {
            return Err("a host pattern cannot have a port");
        }
        let labels = text
            .split('.')
            .enumerate()
            .map(|(number, text)| match text.as_bytes() {
                b"*" if number == 0 => Ok(Label::Many),
                b"*" => Ok(Label::Any),
                [b':', b'a'..=b'z' | b'A'..=b'Z', ..] => Ok(Label::Any),
                [] => Err("the host has an empty label"),
                bytes if bytes.iter().all(is_host_byte) => {
                    Ok(Label::Literal(text.to_ascii_lowercase().into()))
                }
                _ => Err("invalid host"),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            labels,
            text: text.to_ascii_lowercase().into(),
        })
    }

    /// As it was written, in lower case.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether one host matches, and no other.
    pub(super) fn is_exact(&self) -> bool {
        self.labels
            .iter()
            .all(|label| matches!(label, Label::Literal(_)))
    }

    /// Whether `host` (without port) matches.
    pub(super) fn matches(&self, host: &str) -> bool {
        let (mut labels, mut wanted) = (host.rsplit('.'), self.labels.iter().rev());
        loop {
            match (labels.next(), wanted.next()) {
                (None, None) => return true,
                (Some(_), Some(Label::Many)) => return true,
                (Some(label), Some(Label::Any)) if !label.is_empty() => {}
                (Some(label), Some(Label::Literal(text))) if text.eq_ignore_ascii_case(label) => {}
                _ => return false,
            }
        }
    }
}

/// The host of a Host field or an authority, without its port.
#[must_use]
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.is_empty() || is_number(port) => name,
        _ => host,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_host_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}
