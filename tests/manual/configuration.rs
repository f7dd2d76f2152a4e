//! The page Configuration is generated from the command line's own definition.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use etagd::config::Cli;

use crate::documents::hold;

const BEGIN: &str = "<!-- generated from the command line's definition: ETAGD_UPDATE=1 cargo test \
                     --test manual configuration -->\n";
const END: &str = "<!-- /generated -->";

#[test]
fn configuration_is_what_the_command_line_has() {
    let mut cli = Cli::command();
    cli.build();
    let mut page = String::new();
    let serve = cli.find_subcommand("serve").expect("serve");
    for command in cli.get_subcommands() {
        let name = command.get_name();
        if command.is_hide_set() || name == "help" {
            continue;
        }
        // What `dev` shares with `serve` is said once.
        let known = if name == "dev" { Some(serve) } else { None };
        page += &section(command, known);
    }
    hold("sample-site/guide/configuration.html", BEGIN, END, &page);
}

/// A command: a heading, what it is for, and its flags under their headings.
fn section(command: &Command, known: Option<&Command>) -> String {
    let name = command.get_name();
    let mut page = String::new();
    let about = command.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    let stop = if about.ends_with('?') { "" } else { "." };
    let _ = writeln!(page, "\n<h2 id=\"{name}\"><code>etagd {name}</code></h2>");
    let _ = writeln!(page, "<p>{}{stop}</p>", text(&about));
    if let Some(known) = known {
        let other = known.get_name();
        let _ = writeln!(
            page,
            "<p>Flags that are not listed are those of <a href=\"#{other}\"><code>{other}</code></a> \
             that <code>etagd {name} --help</code> names.</p>"
        );
    }
    let is_new = |flag: &&Arg| {
        let twin = known.and_then(|known| {
            known
                .get_arguments()
                .find(|other| other.get_id() == flag.get_id())
        });
        twin.is_none_or(|twin| row(twin) != row(flag))
    };
    let flags: Vec<&Arg> = command
        .get_arguments()
        .filter(|flag| !flag.is_hide_set())
        .filter(|flag| !["help", "version"].contains(&flag.get_id().as_str()))
        .filter(is_new)
        .collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for flag in &flags {
        if !headings.contains(&flag.get_help_heading()) {
            headings.push(flag.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            let id = heading.to_ascii_lowercase().replace(' ', "-");
            let _ = writeln!(page, "<h3 id=\"{name}-{id}\">{}</h3>", text(heading));
        }
        page += "<dl class=\"terms\">\n";
        for flag in flags
            .iter()
            .filter(|flag| flag.get_help_heading() == heading)
        {
            page += &row(flag);
        }
        page += "</dl>\n";
    }
    page
}

/// One flag.
fn row(flag: &Arg) -> String {
    let takes_value = flag.get_action().takes_values();
    let value = flag
        .get_value_names()
        .filter(|_| takes_value)
        .and_then(|names| names.first())
        .map(ToString::to_string);
    let name = match (flag.get_long(), value) {
        (None, value) => value.unwrap_or_else(|| flag.get_id().to_string()),
        (Some(long), None) => format!("--{long}"),
        // With a space, the value would be taken for something else.
        (Some(long), Some(value)) if flag.is_require_equals_set() => format!("--{long}[={value}]"),
        (Some(long), Some(value)) => format!("--{long} {value}"),
    };
    let name = match flag.get_short() {
        Some(short) => format!("-{short}, {name}"),
        None => name,
    };
    let help = flag.get_long_help().or(flag.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    // A paragraph that follows the short line belongs to the same sentence or two.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    // A default that depends on the machine is told in the help itself.
    let (help, mut default) = match help.split_once(" [default: ") {
        Some((before, rest)) => match rest.split_once(']') {
            Some((default, after)) => (format!("{before}{after}"), text(default)),
            None => (help, String::new()),
        },
        None => (help, String::new()),
    };
    let mut rest = String::new();
    let defaults: Vec<_> = flag
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    if takes_value && !defaults.is_empty() && !flag.is_hide_default_value_set() {
        default = format!("<code>{}</code>", text(&defaults.join(", ")));
    }
    if !default.is_empty() {
        let _ = write!(rest, " Default: {default}.");
    }
    if let Some(variable) = flag.get_env() {
        let _ = write!(rest, " <code>{}</code>", variable.to_string_lossy());
    }
    let rest = match rest.trim() {
        "" => String::new(),
        rest => format!(" <span class=\"default\">{rest}</span>"),
    };
    let help = help.trim_end_matches('.');
    let (name, help) = (escape(&name), text(help));
    format!("  <div><dt><code>{name}</code></dt><dd>{help}.{rest}</dd></div>\n")
}

fn escape(plain: &str) -> String {
    plain
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Text as HTML; flags, and what stands between backquotes, are code.
fn text(plain: &str) -> String {
    let mut html = String::new();
    for (at, part) in escape(plain).split('`').enumerate() {
        match at % 2 {
            0 => html += &with_flags(part),
            _ => html += &format!("<code>{part}</code>"),
        }
    }
    html
}

fn with_flags(html: &str) -> String {
    let mut parts = html.split("--");
    let mut marked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_other = |letter: char| !letter.is_ascii_lowercase() && letter != '-';
        let (flag, after) = part.split_at(part.find(is_other).unwrap_or(part.len()));
        match flag {
            "" => marked += "--",
            flag => marked += &format!("<code>--{flag}</code>"),
        }
        marked += after;
    }
    marked
}

#[test]
fn flags_are_code() {
    for (plain, html) in [
        (
            "with --admin or --health.",
            "with <code>--admin</code> or <code>--health</code>.",
        ),
        ("(--log-level debug)", "(<code>--log-level</code> debug)"),
        ("`a --b` and <c>", "<code>a --b</code> and &lt;c&gt;"),
        ("a -- b", "a -- b"),
    ] {
        assert_eq!(text(plain), html);
    }
}
