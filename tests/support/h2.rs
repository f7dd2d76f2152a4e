//! HTTP/2 in cleartext, with prior knowledge: a connection, one request after the other.

use std::net::SocketAddr;

use h2::client::{Builder, SendRequest};
use http::Request;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::Response;

/// A connection, opened again after the server has closed it.
pub(crate) struct Http2 {
    runtime: Runtime,
    address: SocketAddr,
    requests: Option<SendRequest<bytes::Bytes>>,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            runtime: runtime.unwrap(),
            address,
            requests: None,
        }
    }

    /// The response to a GET; `cut` where its stream was reset before the end.
    pub(crate) fn get(&mut self, target: &str, fields: &[(&str, &str)]) -> Response {
        let Self {
            runtime,
            address,
            requests,
        } = self;
        let (response, is_over) = runtime.block_on(async {
            let sender = match requests.take() {
                Some(sender) => sender,
                None => connect(*address).await,
            };
            let mut sender = sender.ready().await.unwrap();
            let answer = get(&mut sender, target, fields).await;
            *requests = Some(sender);
            answer
        });
        if is_over {
            self.requests = None;
        }
        response
    }
}

async fn connect(address: SocketAddr) -> SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut builder = Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    // Its end is seen by the requests on it.
    tokio::spawn(async move { connection.await.ok() });
    sender
}

/// The response, and whether the connection is over with it.
async fn get(
    sender: &mut SendRequest<bytes::Bytes>,
    target: &str,
    fields: &[(&str, &str)],
) -> (Response, bool) {
    let mut request = Request::get(format!("http://localhost{target}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (response, _) = sender
        .send_request(request.body(()).unwrap(), true)
        .unwrap();
    let mut answer = Response {
        version: "HTTP/2".to_owned(),
        status: 200,
        fields: Vec::new(),
        body: Vec::new(),
        cut: true,
        interim: Vec::new(),
    };
    let (head, mut stream) = match response.await {
        Ok(response) => response.into_parts(),
        // A reset may overtake the header section.
        Err(error) if error.is_reset() => return (answer, false),
        Err(error) => panic!("{target}: {error}"),
    };
    answer.status = head.status.as_u16();
    answer.cut = false;
    let mut response = answer;
    for (name, value) in &head.headers {
        let value = value.to_str().unwrap().to_owned();
        response.fields.push((name.to_string(), value));
    }
    let mut is_over = false;
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                let _ = stream.flow_control().release_capacity(data.len());
                response.body.extend_from_slice(&data);
            }
            Err(error) => {
                response.cut = true;
                is_over = !error.is_reset();
                break;
            }
        }
    }
    if !response.cut && response.status != 304 {
        let length = response
            .field("content-length")
            .map(|text| text.parse().unwrap());
        assert_eq!(
            length,
            Some(response.body.len()),
            "{target}: complete, of another length"
        );
    }
    (response, is_over)
}
