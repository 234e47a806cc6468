//! The rooms of the daemon and the arrows between them, as `docs/architecture.md` draws them: a room
//! imports what stands below it and is named beside it, so that there is no arrow upward and no circle.

use std::{collections::BTreeSet, fs, io, path::Path};

/// Each room, the uppermost first, with the rooms that it may import. `BASE` is open to all.
const ROOMS: [(&str, &[&str]); 19] = [
    ("main", &["daemon", "config", "datapath"]),
    (
        "daemon",
        &[
            "server",
            "watchdog",
            "reconcile",
            "enforcement",
            "observer",
            "inventory",
            "events",
            "owners",
            "metrics",
            "ledger",
            "store",
            "live",
            "datapath",
            "config",
        ],
    ),
    (
        "server",
        &[
            "watchdog",
            "reconcile",
            "enforcement",
            "observer",
            "inventory",
            "events",
            "owners",
            "metrics",
            "ledger",
            "store",
            "live",
            "datapath",
            "config",
        ],
    ),
    ("watchdog", &["inventory", "metrics", "ledger", "live", "config"]),
    ("reconcile", &["inventory", "metrics", "ledger", "live"]),
    ("enforcement", &["observer", "events", "owners", "datapath", "metrics", "config"]),
    ("observer", &["events", "owners", "metrics", "live", "datapath", "network", "config"]),
    ("inventory", &["events", "live", "config"]),
    ("events", &["metrics", "ledger"]),
    ("owners", &["ledger", "datapath"]),
    ("metrics", &["ledger", "config"]),
    ("ledger", &["store", "live"]),
    ("store", &[]),
    ("live", &[]),
    ("datapath", &["network"]),
    ("network", &[]),
    ("config", &[]),
    ("supervisor", &["failpoint"]),
    ("lib", &[]),
];

/// What any room may import. None of them knows a room.
const BASE: [&str; 6] = ["clock", "failpoint", "health", "logging", "regular", "supervisor"];

#[test]
fn each_room_imports_only_what_the_table_says() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (at, (room, may)) in ROOMS.iter().enumerate() {
        for below in *may {
            let is_below = ROOMS[at + 1..].iter().any(|(room, _)| room == below);
            assert!(is_below || BASE.contains(below), "{room} stands above {below} in no table");
        }
    }
    let mut found = BTreeSet::new();
    visit(&src, &src, &mut |path, text| {
        let first = path.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs").to_owned();
        let may = ROOMS.iter().find(|(name, _)| *name == room).map(|(_, may)| *may);
        assert!(may.is_some() || BASE.contains(&&*room), "{room} is not in the table of rooms");
        // The binary is outside the library.
        let text = if room == "main" { &text.replace("guard_agent::", "crate::") } else { text };
        for import in imports(text) {
            let own = import == room || (BASE.contains(&import) && !BASE.contains(&&*room));
            let allowed = own || may.is_some_and(|may| may.contains(&import));
            assert!(allowed, "{}: {room} may not import {import}", path.display());
        }
        // From here `super` is the whole crate.
        let top = path.components().count() == 1 || path.ends_with(format!("{room}/mod.rs"));
        assert!(!top || !text.contains("\nuse super"), "{}: write crate::", path.display());
        found.insert(room);
    })
    .unwrap();
    let gone = ROOMS.iter().map(|(room, _)| *room).filter(|room| !found.contains(*room));
    assert_eq!(gone.collect::<Vec<_>>(), [""; 0], "no such room");
}

/// All source files without their tests.
fn visit(src: &Path, folder: &Path, each: &mut dyn FnMut(&Path, &str)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.with_extension("").to_string_lossy().ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            visit(src, &path, each)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let code = text.split_once("#[cfg(test)]\nmod ").map_or(&*text, |(code, _)| code);
        each(path.strip_prefix(src).unwrap_or(&path), code);
    }
    Ok(())
}

/// The first names of all paths that begin with `crate`.
fn imports(text: &str) -> BTreeSet<&str> {
    let code = |at: &usize| {
        let line = text[..*at].rfind('\n').map_or(0, |end| end + 1);
        !text[line..].trim_start().starts_with("//")
    };
    let word = |at: usize| {
        let end = text[at..].find(|c: char| !c.is_alphanumeric() && c != '_');
        &text[at..end.map_or(text.len(), |end| at + end)]
    };
    let mut names = BTreeSet::new();
    for (mut at, root) in text.match_indices("crate::").filter(|(at, _)| code(at)) {
        at += root.len();
        let mut depth = 0;
        loop {
            match text.as_bytes()[at] {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ if depth == 0 => {
                    names.insert(word(at));
                }
                _ if depth == 1 && text[..at].trim_end().ends_with(['{', ',']) => {
                    names.insert(word(at));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            at += 1;
        }
    }
    names.remove("");
    names
}
