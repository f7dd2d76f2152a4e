//! The tokens that allow writing, each with a name. Only their hashes are kept.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Characters of the shortest token; shorter ones can be guessed.
const MIN_TOKEN_LENGTH: usize = 16;

/// The tokens that may write.
pub struct Tokens(Vec<Token>);

struct Token {
    name: String,
    /// `blake3::Hash` compares in constant time.
    hash: blake3::Hash,
}

/// Why a token file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use --write-token-file {}: {problem}", .path.display())]
pub struct TokenError {
    path: PathBuf,
    problem: TokenProblem,
}

#[derive(Debug, thiserror::Error)]
enum TokenProblem {
    #[error("{0}")]
    Read(io::Error),
    #[error("it holds no token; a line is NAME TOKEN")]
    Empty,
    #[error("line {0}: a line is NAME TOKEN, and # begins a comment")]
    Line(usize),
    #[error(
        "line {0}: a token has {MIN_TOKEN_LENGTH} characters or more of A-Z a-z 0-9 - . _ ~ + / =; \
         `openssl rand -hex 32` makes a good one"
    )]
    Token(usize),
}

impl Tokens {
    /// Reads a file of `NAME TOKEN` lines. Warns if every user of the machine can read it.
    pub(super) fn load(path: &Path) -> Result<Self, TokenError> {
        let failed = |problem| TokenError {
            path: path.to_path_buf(),
            problem,
        };
        let read = || {
            let text = fs::read_to_string(path)?;
            Ok((text, fs::metadata(path)?.permissions().mode()))
        };
        let (text, mode) = read().map_err(|error| failed(TokenProblem::Read(error)))?;
        if mode & 0o004 != 0 {
            let path = path.display();
            tracing::warn!(%path, "every user of this machine can read {path}: chmod 600 {path}");
        }
        Self::parse(&text).map_err(failed)
    }

    fn parse(text: &str) -> Result<Self, TokenProblem> {
        let mut tokens = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            let Some(name) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            let number = index + 1;
            let (Some(token), None) = (words.next(), words.next()) else {
                return Err(TokenProblem::Line(number));
            };
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
            if token.len() < MIN_TOKEN_LENGTH || !token.bytes().all(is_allowed) {
                return Err(TokenProblem::Token(number));
            }
            tokens.push(Token {
                name: name.escape_default().to_string(),
                hash: blake3::hash(token.as_bytes()),
            });
        }
        if tokens.is_empty() {
            return Err(TokenProblem::Empty);
        }
        Ok(Self(tokens))
    }

    /// The name of a token. Takes the same time for a nearly right one as for any other.
    pub(super) fn name_of(&self, token: &[u8]) -> Option<String> {
        let hash = blake3::hash(token);
        // No early exit: the time would reveal which one it is.
        let found = self.0.iter().fold(
            None,
            |found, each| {
                if each.hash == hash { Some(each) } else { found }
            },
        );
        found.map(|token| token.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let long = "0123456789abcdef";
        let two = format!("# who\n\n ci {long}\r\n\tann\u{f6}\t{long}.-_~+/= \n");
        let tokens = Tokens::parse(&two).expect("two tokens");
        assert_eq!(tokens.name_of(long.as_bytes()).as_deref(), Some("ci"));
        let other = format!("{long}.-_~+/=");
        assert_eq!(
            tokens.name_of(other.as_bytes()).as_deref(),
            Some("ann\\u{f6}")
        );
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "ci",
        ] {
            assert_eq!(tokens.name_of(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_token_file() {
        let cases = [
            ("", "holds no token"),
            ("# ci 0123456789abcdef\n", "holds no token"),
            ("ci\n", "line 1: a line is NAME TOKEN"),
            ("0123456789abcdef", "line 1: a line is NAME TOKEN"),
            ("\nci 0123456789abcdef x", "line 2: a line is NAME TOKEN"),
            ("ci 0123456789abcde", "line 1: a token has 16"),
            ("ci 0123456789abcd\u{e9}", "line 1: a token has 16"),
            ("ci 0123456789abcde\"", "line 1: a token has 16"),
        ];
        for (text, want) in cases {
            let problem = Tokens::parse(text).err().map(|problem| problem.to_string());
            assert!(
                problem
                    .as_ref()
                    .is_some_and(|problem| problem.contains(want)),
                "{text:?}: {problem:?}"
            );
        }
    }
}
