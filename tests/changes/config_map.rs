//! A Kubernetes ConfigMap, as the kubelet writes it.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::served;
use super::support::tree::EndOfWork;
use super::support::{TestSite, noise};

fn write_config_map(site: &TestSite, version: u64) {
    let dir = format!("..2026_{version}");
    fs::create_dir_all(site.path(format!("{dir}/sub"))).unwrap();
    fs::write(site.path(format!("{dir}/a.json")), format!("{version}")).unwrap();
    fs::write(site.path(format!("{dir}/b.json")), format!("{version}")).unwrap();
    fs::write(site.path(format!("{dir}/sub/c.json")), format!("{version}")).unwrap();
    let large = noise(300_000, version);
    fs::write(site.path(format!("{dir}/large.bin")), large).unwrap();
    symlink(&dir, site.path("..data_tmp")).unwrap();
    fs::rename(site.path("..data_tmp"), site.path("..data")).unwrap();
}

#[test]
fn a_config_map_is_swapped_whole_though_its_old_directory_goes_at_once() {
    let site = TestSite::new();
    write_config_map(&site, 1);
    for name in ["a.json", "b.json", "sub", "large.bin"] {
        symlink(format!("..data/{name}"), site.path(name)).unwrap();
    }
    let server = served(&site);
    let (is_over, newest) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let end = EndOfWork(&is_over);
        let reader = scope.spawn(|| {
            let mut client = server.client();
            let mut answers = 0;
            while !is_over.load(Ordering::Relaxed) {
                for target in ["/a.json", "/b.json", "/sub/c.json"] {
                    let before = newest.load(Ordering::SeqCst);
                    let response = client.get(target);
                    assert_eq!(response.status, 200, "{target}");
                    let version: u64 = String::from_utf8(response.body).unwrap().parse().unwrap();
                    assert!(
                        version >= before,
                        "{target} is of {version}, after {before}"
                    );
                    newest.fetch_max(version, Ordering::SeqCst);
                    answers += 1;
                }
                let response = server.client().get("/large.bin");
                assert!(matches!(response.status, 200 | 503), "{}", response.status);
                assert!(response.status != 200 || response.cut || response.is_what_its_tag_says());
            }
            answers
        });
        for version in 2..=20 {
            write_config_map(&site, version);
            thread::sleep(Duration::from_millis(1));
            fs::remove_dir_all(site.path(format!("..2026_{}", version - 1))).unwrap();
            if version % 3 == 0 {
                server.wait_for_body("/a.json", format!("{version}"));
            }
        }
        server.wait_for_body("/a.json", "20");
        server.wait_for_body("/large.bin", noise(300_000, 20));
        drop(end);
        assert!(reader.join().unwrap() > 100);
    });
    server.wait_until_it_serves(&site.root());
}
