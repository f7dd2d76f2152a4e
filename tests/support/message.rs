//! HTTP/1.1 messages as a store and its clients write them. Unlike `wire`, this takes chunks and
//! requests: what is tested is etagd, not the store.

use std::io::{self, BufRead, Read, Write};

/// A request or a response: its first line, its fields and all of its body.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The next message; none where the connection ends before it. `has_body` is asked about the
    /// head: a response to HEAD has a length and no body.
    pub(crate) fn read(
        from: &mut impl BufRead,
        has_body: impl Fn(&Self) -> bool,
    ) -> io::Result<Option<Self>> {
        let Some(start) = line(from)? else {
            return Ok(None);
        };
        let mut message = Self {
            start,
            fields: Vec::new(),
            body: Vec::new(),
        };
        while let Some(line) = line(from)?
            && !line.is_empty()
        {
            let (name, value) = line.split_once(':').ok_or_else(|| broken(&line))?;
            message
                .fields
                .push((name.to_owned(), value.trim().to_owned()));
        }
        if has_body(&message) {
            message.body = message.read_body(from)?;
        }
        Ok(Some(message))
    }

    fn read_body(&mut self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if self.field("Transfer-Encoding").is_some() {
            loop {
                let size = line(from)?.ok_or_else(|| broken("a chunk's size"))?;
                let size = size.split(';').next().unwrap_or_default();
                let size = u64::from_str_radix(size, 16).map_err(|_| broken(size))?;
                from.take(size).read_to_end(&mut body)?;
                line(from)?;
                if size == 0 {
                    break;
                }
            }
            // It is passed on with its length.
            self.fields
                .retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
            self.fields
                .push(("Content-Length".to_owned(), body.len().to_string()));
        } else {
            let length = self.field("Content-Length").unwrap_or("0");
            let length = length.parse().map_err(|_| broken(length))?;
            from.take(length).read_to_end(&mut body)?;
            if (body.len() as u64) < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body)
    }

    /// The value of the first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let field = fields.find(|(each, _)| each.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.fields
            .retain(|(each, _)| !each.eq_ignore_ascii_case(name));
        self.fields.push((name.to_owned(), value.to_string()));
    }

    /// Of a response.
    pub(crate) fn status(&self) -> u16 {
        let mut words = self.start.split(' ');
        words.nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Writes the head as it is, and these bytes of the body.
    pub(crate) fn write(&self, to: &mut impl Write, body: &[u8]) -> io::Result<()> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        to.write_all(&[head.as_bytes(), b"\r\n", body].concat())?;
        to.flush()
    }
}

/// The next line without its end; none at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {what}"))
}
