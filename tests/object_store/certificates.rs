//! A store that speaks TLS with a certificate from an authority of its own (`--ca`).

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::releases::{assert_complete, digest, gc, push, records, small_site};
use crate::replicas::{Replica, visit};
use crate::support::store::{ADMIN, Bucket, Ceph, run};
use crate::transports::Authority;

/// Takes connections over TLS, with a certificate of this authority for 127.0.0.1, and passes on what is in
/// them.
fn speak_tls(authority: &Authority, store: SocketAddr) -> SocketAddr {
    authority.issue_for("127.0.0.1");
    let certificate = CertificateDer::from_pem_file(authority.certificate()).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.key()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not trust it goes away.
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    let mut store = TcpStream::connect(store).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut store).await;
                });
            }
        });
    });
    address
}

#[test]
fn each_command_reaches_a_store_whose_authority_it_is_told() {
    let Some(ceph) = Ceph::shared() else {
        return;
    };
    let bucket = ceph.bucket();
    let authority = Authority::new();
    let address = speak_tls(&authority, bucket.address());
    let command = || over_tls(&bucket, address);
    let ca = authority.root();
    let ca = ["--ca", ca.to_str().unwrap()];
    let url = bucket.url();

    // Nobody has told it whom to trust.
    let refused = push(command(), &small_site(1), &bucket, &[]);
    let refused = refused.fails(1, &["UnknownIssuer", "in --ca"]);
    assert!(refused.said.contains(&url), "{}", refused.said);
    for (file, says) in [
        ("/nonexistent", "cannot read --ca"),
        ("/dev/null", "no certificate"),
    ] {
        let flags = ["--ca", file];
        push(command(), &small_site(1), &bucket, &flags).fails(1, &[says, file]);
        run(command(), [&["releases", &url][..], &flags].concat()).fails(1, &[says, file]);
        run(command(), [&["serve", &url][..], &flags].concat()).fails(1, &[says, file]);
    }
    assert_eq!(records(&bucket, "live").len(), 0);

    for version in 1..=2 {
        push(command(), &small_site(version), &bucket, &ca).ok();
    }
    let back = ["rollback", &url, "--to", "1"];
    run(command(), [&back[..], &ca].concat()).ok();
    let listed = run(command(), [&["releases", &url][..], &ca].concat()).ok();
    assert_eq!(listed.out.lines().count(), 3, "{}", listed.out);
    gc(command(), &bucket, &ca).ok();
    assert_eq!(assert_complete(&bucket, "live")["rollback_to"], 1);
    let replica = Replica::start(command(), &bucket, &ca);
    assert_eq!(replica.digest(), digest(&small_site(1)));
    assert_eq!(visit(&mut replica.server.client()), 1);
}

fn over_tls(bucket: &Bucket, address: SocketAddr) -> Command {
    let mut command = bucket.command(ADMIN);
    command
        .env("AWS_ENDPOINT_URL", format!("https://{address}"))
        .env_remove("AWS_ALLOW_HTTP")
        .env_remove("SSL_CERT_FILE");
    command
}
