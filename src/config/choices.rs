//! Which of their values a flag takes, for types that know of no command line.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::log::{LogFormat, LogLevel};
use crate::settings::{
    Certificate, HtmlHandling, NotFound, RedirectsDialect, ReprDigest, Symlinks,
};

/// Implements [`ValueEnum`] for a type with a method `as_str`.
macro_rules! choices {
    ($($type:ident: $($variant:ident),+;)+) => {$(
        impl ValueEnum for $type {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(PossibleValue::new(self.as_str()))
            }
        }
    )+};
}

choices! {
    Certificate: OwnMade;
    HtmlHandling: Suffix, AutoTrailingSlash, ForceTrailingSlash, DropTrailingSlash, None;
    LogFormat: Text, Json;
    LogLevel: Error, Warn, Info, Debug;
    NotFound: None, Page, SinglePageApplication;
    RedirectsDialect: Netlify, Cloudflare;
    ReprDigest: Off, Wanted, Always;
    Symlinks: Inside, All, None;
}
