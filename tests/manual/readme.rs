//! The README is a front page.

use crate::documents::{read, top};

#[test]
fn the_readme_is_short_and_has_the_set_up() {
    let text = read("README.md");
    let words = text.split_whitespace().count();
    assert!(words <= 1300, "{words} words: the rest is for the manual");
    for command in [
        "$ cargo run --release -- serve sample-site\n",
        "$ cargo test\n",
    ] {
        assert!(text.contains(command), "{command}");
    }
}

/// Links of README and changelog that lead into the repository lead somewhere.
#[test]
fn its_links_lead_somewhere() {
    for document in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "deploy/README.md",
    ] {
        let text = read(document);
        let folder = top().join(document);
        let folder = folder.parent().unwrap();
        let missing: Vec<_> = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
            .filter(|link| !link.is_empty() && !link.contains("://"))
            .filter(|link| !folder.join(link).exists())
            .collect();
        assert!(missing.is_empty(), "{document}: {missing:?}");
    }
}
