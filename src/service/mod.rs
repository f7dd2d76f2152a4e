//! A request on its way through the layers, and its response on the way back.
//!
//! From the outside in: [`LogLayer`] counts each request, writes its line, and finishes the head of
//! each response; then the layers that this server has (the developer's in [`crate::dev`],
//! [`HealthLayer`], [`WriteLayer`]; [`RedirectLayer`] where plain HTTP leads to HTTPS); innermost
//! [`SiteLayer`], the only place where an
//! [`Answer`](crate::answer::Answer) becomes a response. Each asks the next one and hands its reply
//! on. They are put together once, where the server is started.
//!
//! A response to a plain request whose answer is in memory takes the same way at once
//! ([`Layer::respond_at_once`]), and comes out as bytes. Of all others `Date` is hyper's, and so is the
//! `Content-Length` of a response that has its body.

mod at_once;
mod content;
mod dictionary;
mod draft;
mod fields;
mod framing;
mod front_content;
mod handler;
mod health;
mod hsts;
mod log;
mod pages;
mod redirect;
mod response;
mod site;
#[cfg(test)]
pub mod stand_ins;
mod waiting;
mod write;

pub use content::FileContent;
pub use framing::Framing;
pub use front_content::{CountedExchange, FrontContent, SealedContent};
pub use handler::{Connection, FrontRequest, Handler, InFlight, Layer};
pub use health::HealthLayer;
pub use hsts::HstsFilter;
pub use log::{LogFuture, LogLayer, LoggedBody};
pub use pages::error_page;
pub use redirect::RedirectLayer;
pub use response::{
    AtOnce, BoxError, Content, FilesAtOnce, MemoryReply, Reply, ResponseFuture, SealingFuture,
};
pub use site::SiteLayer;
pub use write::WriteLayer;
