//! Finds the Debian archive among the machine's own apt sources, in both of the forms of
//! sources.list(5).

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Debian's own keys, where the source names none.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An archive that the machine already trusts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Archive {
    uri: String,
    signed_by: String,
}

impl Archive {
    /// The archive that the machine's release is installed from.
    pub(super) fn of_machine() -> Result<Self> {
        let codename = &codename()?;
        let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
        if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
        }
        files.sort();
        files
            .iter()
            .filter_map(|file| {
                let text = fs::read_to_string(file).ok()?;
                match file.extension()?.to_str()? {
                    "sources" => Self::in_deb822(&text, codename),
                    "list" => Self::in_one_line(&text, codename),
                    // apt ignores other names, too.
                    _ => None,
                }
            })
            .next()
            .with_context(|| format!("no apt source under /etc/apt has the suite {codename}"))
    }

    /// The one-line form of `suite` of this archive.
    pub(super) fn source(&self, suite: &str) -> String {
        format!("deb [signed-by={}] {} {suite} main\n", self.signed_by, self.uri)
    }

    fn in_deb822(text: &str, codename: &str) -> Option<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines: Vec<&str> = lines.map(str::trim_end).collect();
        lines.split(|line| line.is_empty()).find_map(|stanza| {
            let field = |name: &str| {
                let mut fields = stanza.iter().filter_map(|line| line.split_once(':'));
                fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            };
            let has =
                |name, word| field(name).is_some_and(|v| v.split_whitespace().any(|w| w == word));
            if !has("Types", "deb") || !has("Suites", codename) {
                return None;
            }
            Some(Self::new(
                field("URIs")?.split_whitespace().next()?,
                field("Signed-By").map(str::trim),
            ))
        })
    }

    fn in_one_line(text: &str, codename: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("deb ")?.trim_start();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(rest) => rest.split_once(']')?,
                None => ("", rest),
            };
            let mut words = rest.split_whitespace();
            let (uri, suite) = (words.next()?, words.next()?);
            let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
            (suite == codename).then(|| Self::new(uri, signed_by))
        })
    }

    /// `signed_by` counts only as a path: a key given in full stays with the machine's sources.
    fn new(uri: &str, signed_by: Option<&str>) -> Self {
        let signed_by = signed_by.filter(|path| path.starts_with('/')).unwrap_or(KEYRING);
        Self { uri: uri.to_owned(), signed_by: signed_by.to_owned() }
    }
}

/// The name of the machine's release.
pub(super) fn codename() -> Result<String> {
    let release =
        fs::read_to_string("/etc/os-release").context("could not read /etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release has no VERSION_CODENAME")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(uri: &str, signed_by: &str) -> Option<Archive> {
        Some(Archive { uri: uri.to_owned(), signed_by: signed_by.to_owned() })
    }

    #[test]
    fn deb822_is_read_by_suite() {
        let text = "# vendor\nTypes: deb\nURIs: http://vendor.test/\nSuites: nodistro\n\n\
            Types: deb\n# snapshot\nURIs: http://mirror.test/debian http://second.test/debian\n\
            Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /keys/debian.gpg\n\n\
            Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\n";
        let found = Archive::in_deb822(text, "bookworm");
        assert_eq!(found, archive("http://mirror.test/debian", "/keys/debian.gpg"));
        assert_eq!(Archive::in_deb822(text, "trixie"), None);
    }

    #[test]
    fn deb822_with_a_key_in_full_falls_back_to_debians() {
        let text = "Types: deb\nURIs: http://mirror.test/debian\nSuites: trixie\nSigned-By:\n \
            -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY\n";
        let found = Archive::in_deb822(text, "trixie");
        assert_eq!(found, archive("http://mirror.test/debian", KEYRING));
    }

    #[test]
    fn one_line_is_read_with_and_without_options() {
        let text = "deb-src http://mirror.test/debian bookworm main\n\
            deb http://mirror.test/security bookworm-security main\n\
            deb [arch=amd64 signed-by=/keys/d.gpg] http://mirror.test/debian bookworm main\n";
        let found = Archive::in_one_line(text, "bookworm");
        assert_eq!(found, archive("http://mirror.test/debian", "/keys/d.gpg"));
        let found = Archive::in_one_line("deb http://mirror.test/debian trixie main", "trixie");
        assert_eq!(found, archive("http://mirror.test/debian", KEYRING));
    }

    #[test]
    fn another_suite_of_the_archive_keeps_its_key() {
        let archive = Archive::new("http://mirror.test/debian", Some("/keys/d.gpg"));
        assert_eq!(
            archive.source("trixie-backports"),
            "deb [signed-by=/keys/d.gpg] http://mirror.test/debian trixie-backports main\n"
        );
    }
}
