//! The site that all request cases are asked of.

use std::collections::HashMap;
use std::io::Write;

use sha2::{Digest, Sha256};

use super::{TestSite, noise};

/// The site of all cases, and its files by the path that a case writes for them.
pub(crate) fn fixture() -> (TestSite, HashMap<String, Vec<u8>>) {
    let umlauts = "ä".repeat(200_000);
    let prose =
        "<p>What is compressed here is prose, and of prose there is enough.</p>\n".repeat(9);
    let coded = format!("<!doctype html><title>coded</title>\n{prose}").into_bytes();
    let long = noise(1_500_000, 4);
    let (old, new) = (script(0), script(1));
    let files: Vec<(&str, Vec<u8>)> = vec![
        (
            "/small.txt",
            noise(1500, 1).iter().map(|byte| byte % 64 + b' ').collect(),
        ),
        ("/middle.bin", noise(300 * 1024, 2)),
        ("/big.bin", noise(3 * 1024 * 1024 + 77, 3)),
        ("/sentinel.txt", b"sentinel".to_vec()),
        ("/empty.txt", Vec::new()),
        (
            "/index.html",
            b"<!doctype html><title>root</title>".to_vec(),
        ),
        (
            "/404.html",
            b"<!doctype html><title>no such page</title>".to_vec(),
        ),
        (
            "/sub/index.html",
            b"<!doctype html><title>sub</title>".to_vec(),
        ),
        (
            "/sub/page.html",
            b"<!doctype html><title>page</title>".to_vec(),
        ),
        (
            "/sub/404.html",
            b"<!doctype html><title>not below sub</title>".to_vec(),
        ),
        ("/sub/deep/leaf.txt", b"leaf".to_vec()),
        ("/bare/leaf.txt", b"in a directory without index".to_vec()),
        ("/evil.example/index.html", b"<!doctype html>".to_vec()),
        ("/with space/index.html", b"<!doctype html>".to_vec()),
        ("/sharp#/index.html", b"<!doctype html>".to_vec()),
        ("/what?/index.html", b"<!doctype html>".to_vec()),
        ("/line\nfeed/index.html", b"<!doctype html>".to_vec()),
        ("/a b'\"<&>.txt", b"quotes".to_vec()),
        ("/100%.txt", b"a percent sign".to_vec()),
        ("/%41.txt", b"a name that looks encoded".to_vec()),
        ("/A.txt", b"capital A".to_vec()),
        (
            "/back\\slash.txt",
            b"a backslash is a byte of a name".to_vec(),
        ),
        ("/caf\u{e9}.txt", b"two bytes of UTF-8".to_vec()),
        ("/caf\u{e9}/index.html", b"<!doctype html>".to_vec()),
        ("/...", b"three dots".to_vec()),
        (
            "/.well-known/security.txt",
            b"Contact: mailto:a@b.example".to_vec(),
        ),
        ("/.well-known/acme/token", b"token".to_vec()),
        ("/.env", b"SECRET".to_vec()),
        ("/.git/config", b"SECRET".to_vec()),
        ("/sub/.htaccess", b"SECRET".to_vec()),
        ("/..data-1/inside.txt", b"a ConfigMap's file".to_vec()),
        ("/style.css", b"a{}".to_vec()),
        ("/script.js", b"'use strict'".to_vec()),
        ("/module.mjs", b"export {}".to_vec()),
        ("/data.json", b"{}".to_vec()),
        (
            "/image.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
        ),
        ("/image.png", b"\x89PNG\r\n\x1a\n".to_vec()),
        ("/font.woff2", b"wOF2\xff".to_vec()),
        ("/code.wasm", b"\0asm".to_vec()),
        ("/SHOUT.HTML", b"<!doctype html>".to_vec()),
        ("/latin1.txt", b"caf\xe9".to_vec()),
        ("/umlauts.txt", format!("x{umlauts}").into_bytes()),
        ("/broken-umlaut.txt", [umlauts.as_bytes(), b"\xc3"].concat()),
        ("/LICENSE", "§ 1".as_bytes().to_vec()),
        ("/coded.html.br", brotli(&coded)),
        ("/coded.html.zst", zstd(&coded)),
        ("/coded.html.gz", gzip(&coded)),
        ("/coded.html", coded),
        (
            "/gzipped.html.gz",
            gzip(b"<!doctype html><title>gzipped</title>"),
        ),
        (
            "/gzipped.html",
            b"<!doctype html><title>gzipped</title>".to_vec(),
        ),
        ("/long.bin.gz", gzip(&long)),
        ("/long.bin", long),
        ("/stale.html.gz", gzip(b"what the page was before")),
        ("/stale.html.br", b"no brotli at all".to_vec()),
        ("/stale.html.zst", zstd(&[b' '; 1 << 20])),
        ("/stale.html", b"what the page is now".to_vec()),
        ("/alone.html.gz", gzip(b"nothing stands beside it")),
        ("/blob", b"\xfc\xfe\0\x01".to_vec()),
        ("/what.xyzzy", b"\xff\0".to_vec()),
        ("/.well-known/apple-app-site-association", b"{}".to_vec()),
        ("/file.html", page("a file")),
        ("/folder/index.html", page("a folder")),
        ("/both.html", page("a file beside a folder")),
        ("/both/index.html", page("a folder beside a file")),
        ("/bin", b"no page".to_vec()),
        ("/bin.html", page("a file beside one without extension")),
        ("/deep/er/still/leaf.html", page("a leaf")),
        ("/100% {[caf\u{e9}]}.html", page("a name to encode")),
        ("/assets/app.3f2a.js", b"'use strict'".to_vec()),
        ("/assets/deep/font.woff2", b"wOF2\xff\xff".to_vec()),
        ("/assets/page.html", page("among the assets")),
        ("/assets/prose.txt.gz", gzip(prose.as_bytes())),
        ("/assets/prose.txt", prose.into_bytes()),
        // The second replaces the first, and the first is the dictionary of its deltas.
        ("/assets/delta-0a0b0c0d.js", old.clone()),
        ("/assets/delta-1a1b1c1d.js.br", brotli(&new)),
        (
            "/assets/delta-1a1b1c1d.js.dfd9125ff48b2025.dcb",
            delta_brotli(&old, &new),
        ),
        (
            "/assets/delta-1a1b1c1d.js.dfd9125ff48b2025.dcz",
            delta_zstd(&old, &new),
        ),
        // Its dictionary is not there.
        (
            "/assets/delta-1a1b1c1d.js.2ea17fb874cb49ac.dcz",
            delta_zstd(b"what is no more", &new),
        ),
        // It has a good header, and decodes to nothing.
        (
            "/assets/delta-0a0b0c0d.js.704d2d055d9da1e4.dcb",
            delta_brotli(&new, &old)[..60].to_vec(),
        ),
        ("/assets/delta-1a1b1c1d.js", new),
    ];
    let site = files
        .iter()
        .fold(TestSite::new(), |site, (path, content)| {
            site.file(&path[1..], content)
        })
        .file(b"caf\xe9-latin1.txt", "one byte that is no UTF-8")
        .file_dated("epoch.txt", "dated 0", 0)
        .file_dated("one.txt", "dated 1", 1)
        .file_dated("old.txt", "dated before 1970", -1_000_000_000)
        .file_dated("future.txt", "dated 2096", 4_000_000_000)
        .file_outside("secret.txt", b"SECRET")
        .dir("nothing-in-it")
        .symlink("link.txt", "small.txt")
        .symlink("..data", "..data-1")
        .symlink("inside.txt", "..data/inside.txt")
        .symlink("sub/up.txt", "../sentinel.txt")
        .symlink("linked", "sub")
        .symlink("out.txt", "../secret.txt")
        .symlink("out", "..")
        .symlink("dangling", "nowhere")
        .symlink("loop", "loop")
        .symlink("sub/self", ".")
        .fifo("pipe")
        .socket("socket")
        .device("zero");
    let absolute = site.path("small.txt");
    let site = site
        .symlink("absolute.txt", absolute)
        .symlink("passwd", "/etc/passwd");
    let files = files
        .into_iter()
        .map(|(path, content)| (path.to_owned(), content))
        .collect();
    (site, files)
}

fn page(title: &str) -> Vec<u8> {
    format!("<!doctype html><title>{title}</title>").into_bytes()
}

/// The text of a file of two releases.
fn script(release: usize) -> Vec<u8> {
    let line = |line: usize| {
        let number = line + if line % 20 == 7 { release } else { 0 };
        format!(
            "export const v{line} = f({number}, {});\n",
            number * 40_503 % 65_521
        )
    };
    (0..60)
        .flat_map(|number| line(number).into_bytes())
        .collect()
}

/// RFC 9842 section 4.
fn delta_brotli(dictionary: &[u8], content: &[u8]) -> Vec<u8> {
    let mut encoded = [b"\xffDCB", &*Sha256::digest(dictionary)].concat();
    brotli::BrotliCompressCustomIoCustomDict(
        &mut brotli::IoReaderWrapper(&mut &*content),
        &mut brotli::IoWriterWrapper(&mut encoded),
        &mut [0; 4096],
        &mut [0; 4096],
        &brotli::enc::BrotliEncoderParams::default(),
        brotli::enc::StandardAlloc::default(),
        &mut |_, _, _, _| (),
        dictionary,
        std::io::ErrorKind::UnexpectedEof.into(),
    )
    .unwrap();
    encoded
}

/// RFC 9842 section 5.
fn delta_zstd(dictionary: &[u8], content: &[u8]) -> Vec<u8> {
    let magic = b"\x5e\x2a\x4d\x18\x20\0\0\0";
    let header = [magic, &*Sha256::digest(dictionary)].concat();
    let mut encoder = zstd::Encoder::with_ref_prefix(header, 3, dictionary).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn brotli(content: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let params = brotli::enc::BrotliEncoderParams::default();
    brotli::BrotliCompress(&mut &content[..], &mut encoded, &params).unwrap();
    encoded
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 3).unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}
