//! `sidecar scan` as a user runs it: what it prints, what it says beside that, and the code it ends with.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fixtures::tokens::TOKEN_CASES;
use serde_json::Value;
use tempfile::TempDir;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE"; // gitleaks:allow
/// No token rule would recognise it.
const KNOWN: &str = "correct-horse+battery/staple=Zq9"; // gitleaks:allow
/// Far above what is kept of an input, far below the inputs of the tests.
const MEMORY: u64 = 48 << 20;
const BIG: u64 = 100 << 20;

struct Place {
    directory: TempDir,
    environment: Vec<(&'static str, OsString)>,
}

#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    /// A repository, for only there does `.gitignore` mean anything.
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("scan").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self {
            directory,
            environment: Vec::new(),
        };
        fs::create_dir_all(place.path(".git")).unwrap();
        place
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join("tree").join(name)
    }

    fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidecar"));
        command.arg("scan").args(arguments);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .env("HOME", self.directory.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    fn scan(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments).spawn().unwrap())
    }

    fn scan_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        finish(child)
    }

    fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let ran = self.scan(&[&["--format", "json"], arguments].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    /// The paths with findings.
    fn found(&self, arguments: &[&str]) -> Vec<String> {
        self.json(arguments)
            .iter()
            .map(|entry| entry["path"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_clean_tree() {
    let place = Place::new();
    place
        .file("a.txt", "nothing to see")
        .file("b/c.rs", "fn main() {}");
    let ran = place.scan(&[]);
    assert_eq!(ran.code, 0);
    assert_eq!(ran.stdout, "");
    assert_eq!(ran.stderr, "0 findings in 2 files, 26 B\n");
    let ran = place.scan(&["--format", "json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "[]\n"));
    let ran = place.scan(&["--quiet"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn findings_are_lines_in_the_order_of_paths() {
    let place = Place::new();
    let github = "ghp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"; // gitleaks:allow
    place
        .file(
            "src/b.py",
            format!("one = 1\r\n# grün\ntwo = \"ü{KEY}\" + {github}\n"),
        )
        .file("a.env", format!("KEY={KEY}"));
    let ran = place.scan(&[]);
    assert_eq!(ran.code, 10, "{ran:?}");
    insta::assert_snapshot!(ran.stdout + "--- stderr\n" + &ran.stderr, @r#"
    a.env:1:5: aws-access-key: AWS access key: KEY=********
    src/b.py:3:9: aws-access-key: AWS access key: one = 1  # grün two = "ü********" + ********
    src/b.py:3:33: github-token-classic: GitHub token (classic): one = 1  # grün two = "ü********" + ********
    --- stderr
    3 findings in 2 files, 115 B
    "#);
    assert_eq!(
        place.found(&["src", "a.env"]),
        ["a.env", "src/b.py", "src/b.py"]
    );
    assert_eq!(
        place.found(&["./a.env", "a.env", "."]).len(),
        3,
        "each once"
    );
}

#[test]
fn the_same_tree_gives_the_same_report() {
    let place = Place::new();
    for at in 0..300 {
        place.file(
            format!("d{}/f{at}", at % 7),
            format!("{KEY}, {KEY};\n\n'{KEY}'"),
        );
    }
    let first = place.scan(&["--format", "sarif"]);
    for _ in 0..5 {
        assert_eq!(place.scan(&["--format", "sarif"]).stdout, first.stdout);
    }
    assert_eq!(place.found(&[]).len(), 900);
}

#[test]
fn what_git_ignores_and_what_is_hidden() {
    let place = Place::new();
    place
        .file(".gitignore", "secret.txt\n/target\n")
        .file("sub/.ignore", "other.txt\n")
        .file("secret.txt", KEY)
        .file("target/x", KEY)
        .file("sub/other.txt", KEY)
        .file("../.config/git/ignore", "global.txt\n")
        .file("global.txt", KEY)
        .file(".git/info/exclude", "excluded.txt\n")
        .file("excluded.txt", KEY)
        .file(".env", KEY)
        .file(".git/config", KEY)
        .file("sub/.git", KEY);
    let ran = place.scan(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert_eq!(
        ran.stderr,
        "note: 3 hidden files and directories were skipped; --hidden scans them\n\
         note: there was no file to scan; --no-ignore and --hidden leave less out\n\
         0 findings in 0 files, 0 B\n"
    );
    assert_eq!(
        place.found(&["--no-ignore"]),
        [
            "excluded.txt",
            "global.txt",
            "secret.txt",
            "sub/other.txt",
            "target/x"
        ]
    );
    assert_eq!(place.found(&["--hidden"]), [".env"]);
    assert_eq!(place.found(&["--hidden", "--no-ignore"]).len(), 6);
    // What one names one means.
    assert_eq!(
        place.found(&["secret.txt", "target", ".env", ".git/config"]),
        [".env", ".git/config", "secret.txt", "target/x"]
    );
}

#[test]
fn standard_input() {
    let place = Place::new();
    place.file("a", KEY);
    let ran = place.scan_input(&["-"], format!("\n\n  {KEY}").as_bytes());
    assert_eq!(ran.code, 10);
    assert_eq!(
        ran.stdout,
        "<stdin>:3:3: aws-access-key: AWS access key: ********\n"
    );
    let ran = place.scan_input(&["-", "a", "-"], KEY.as_bytes());
    assert_eq!(ran.stdout.lines().count(), 2, "{ran:?}");
    // Nothing of it is read unless it is asked for.
    let ran = place.scan_input(&["--quiet", ".git"], KEY.as_bytes());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert_eq!(place.scan_input(&["-"], b"").code, 0);
}

#[test]
fn json_says_where_it_is() {
    let place = Place::new();
    let text = format!("é\n  {KEY}; é={KEY}");
    place.file("a", &text);
    let entries = place.json(&[]);
    assert_eq!(entries.len(), 2);
    for entry in &entries {
        let number = |key: &str| entry[key].as_u64().unwrap() as usize;
        let (start, length) = (number("offset"), number("length"));
        assert_eq!(&text[start..start + length], KEY);
        assert_eq!(entry["rule"], "aws-access-key");
        assert_eq!(entry["credential"], "AWS access key");
        assert_eq!(entry["severity"], "block");
        assert!(["shape", "structure"].contains(&entry["confidence"].as_str().unwrap()));
        assert_eq!(entry["via"], Value::Array(Vec::new()));
        assert_eq!(entry["structural"], false);
        assert!(entry["context"].as_str().unwrap().contains("********"));
    }
    let place_of = |entry: &Value| {
        ["line", "column", "end_line", "end_column"].map(|key| entry[key].as_u64().unwrap())
    };
    assert_eq!(place_of(&entries[0]), [2, 3, 2, 23]);
    assert_eq!(place_of(&entries[1]), [2, 27, 2, 47]);
    assert_ne!(entries[0]["fingerprint"], entries[1]["fingerprint"]);
}

/// The properties that SARIF 2.1.0 requires of what is used of it, and that code scanning asks for beyond that.
#[test]
fn sarif_has_what_the_standard_requires() {
    let mut place = Place::new();
    place.environment.push(("EGRESS_TOKEN_X", KNOWN.into()));
    place
        .file("a b/ü.txt", format!("x\n{KEY}\n"))
        .file("c", KNOWN);
    let ran = place.scan(&["--format", "sarif", "--known-from-env", ".", "missing"]);
    assert_eq!(ran.code, 10, "{ran:?}");
    let log: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().contains("2.1.0"));
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "bot-bottle");
    let rules = driver["rules"].as_array().unwrap();
    for rule in rules {
        assert!(!rule["id"].as_str().unwrap().is_empty());
        assert!(
            !rule["shortDescription"]["text"]
                .as_str()
                .unwrap()
                .is_empty()
        );
    }
    let mut ids: Vec<&str> = rules
        .iter()
        .map(|rule| rule["id"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), rules.len(), "an id is there once");

    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert_eq!(result["level"], "error");
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        let physical = &result["locations"][0]["physicalLocation"];
        let uri = physical["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.bytes().all(|byte| byte.is_ascii_graphic()), "{uri}");
        let number = |key: &str| physical["region"][key].as_u64().unwrap();
        assert!(number("startLine") >= 1 && number("startColumn") >= 1);
        assert!(
            (number("endLine"), number("endColumn")) > (number("startLine"), number("startColumn"))
        );
        assert!(number("byteLength") > 0);
        let _any = number("byteOffset");
        let prints = result["partialFingerprints"].as_object().unwrap();
        assert!(prints.values().all(Value::is_string) && !prints.is_empty());
    }
    let first = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(first["artifactLocation"]["uri"], "a%20b/%C3%BC.txt");
    assert_eq!(first["region"]["startLine"], 2);
    let invocation = &run["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    let text = &invocation["toolExecutionNotifications"][0]["message"]["text"];
    assert!(text.as_str().unwrap().starts_with("missing: "), "{text}");
}

#[test]
fn a_big_file_fills_no_memory() {
    let place = Place::new();
    let mut file = File::create(place.path("big")).unwrap();
    // A sparse one; with a line that is longer than what is kept.
    file.seek(SeekFrom::Start(BIG / 2)).unwrap();
    writeln!(file, " {KEY}").unwrap();
    file.set_len(BIG).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    write!(file, "\n{KEY}").unwrap();
    drop(file);
    let mut child = place.command(&["--format", "json", "big"]).spawn().unwrap();
    let mut highest = 0;
    while child.try_wait().unwrap().is_none() {
        highest = highest.max(high_water(&child).unwrap_or(0));
        pause();
    }
    let ran = finish(child);
    assert!(highest > 0 && highest < MEMORY, "{highest}");
    let entries: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let places: Vec<_> = entries
        .iter()
        .map(|entry| ["line", "column", "offset"].map(|key| entry[key].as_u64().unwrap()))
        .collect();
    let half = BIG / 2;
    assert_eq!(places, [[1, half + 2, half + 1], [3, 1, BIG + 1]]);
}

#[test]
fn a_long_input_fills_no_memory() {
    let place = Place::new();
    let mut child = place.command(&["-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = "let answer = 42; // and more of the same, of no interest at all\n";
    let block = line.repeat(1 << 14);
    let mut written = 0;
    while written < BIG {
        stdin.write_all(block.as_bytes()).unwrap();
        written += block.len() as u64;
    }
    // All but what fits into a pipe was read, and it has not ended.
    let highest = high_water(&child).unwrap();
    stdin.write_all(KEY.as_bytes()).unwrap();
    drop(stdin);
    let ran = finish(child);
    assert!(highest < MEMORY, "{highest}");
    let expected = format!("<stdin>:{}:1: ", written / line.len() as u64 + 1);
    assert!(ran.stdout.starts_with(&expected), "{ran:?}");
}

/// The most memory that a process ever had, in bytes.
fn high_water(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no runtime whose worker this would block"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

#[test]
fn what_cannot_be_read_is_no_clean_result() {
    let place = Place::new();
    place
        .file("closed.txt", "nothing")
        .file("closed/inner.txt", "nothing")
        .file("open.txt", "nothing");
    for path in ["closed.txt", "closed"] {
        fs::set_permissions(place.path(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    // Root may read everything, so somebody else has to try; he may not reach the build directory.
    let program = place.directory.path().join("sidecar");
    fs::copy(env!("CARGO_BIN_EXE_sidecar"), &program).unwrap();
    let scan = |arguments: &[&str]| {
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .args([
                    "--reuid",
                    "65534",
                    "--regid",
                    "65534",
                    "--clear-groups",
                    "--",
                ])
                .arg(&program);
            command
        } else {
            Command::new(&program)
        };
        place.prepare(&mut command);
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        finish(command.arg("scan").args(arguments).spawn().unwrap())
    };
    let ran = scan(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert_eq!(
        ran.stderr,
        "error: closed: Permission denied (os error 13)\n\
         error: closed.txt: Permission denied (os error 13)\n\
         0 findings in 1 file, 7 B; 2 not read\n"
    );
    assert_eq!(scan(&["--quiet"]).stderr.lines().count(), 2, "errors stay");
    place.file("open.txt", KEY);
    assert_eq!(scan(&[]).code, 10, "findings weigh more");
    assert_eq!(scan(&["--exit-code", "0"]).code, 1);
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o755)).unwrap();

    let ran = place.scan(&["missing", "open.txt"]);
    assert_eq!(ran.code, 10);
    assert!(ran.stderr.starts_with("error: missing: "), "{ran:?}");
    assert_eq!(place.scan(&["missing"]).code, 1);
}

#[test]
fn a_binary_file() {
    let place = Place::new();
    let mut bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let offset = bytes.len();
    bytes.extend_from_slice(KEY.as_bytes());
    bytes.extend((0..=255).rev().cycle().take(10_000));
    place.file("program", bytes);
    let entries = place.json(&[]);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["offset"], offset);
    let ran = place.scan(&[]);
    assert_eq!(ran.stdout.lines().count(), 1);
    assert!(!ran.stdout.trim_end().contains(char::is_control));
}

#[test]
fn links_and_special_files() {
    let place = Place::new();
    let outside = place.directory.path().join("outside.txt");
    fs::write(&outside, KEY).unwrap();
    fs::create_dir(place.path("sub")).unwrap();
    symlink("..", place.path("sub/loop")).unwrap();
    symlink(".", place.path("self")).unwrap();
    symlink(&outside, place.path("out")).unwrap();
    symlink("/", place.path("root")).unwrap();
    symlink("nowhere", place.path("broken")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(place.path("pipe"))
            .status()
            .unwrap()
            .success()
    );
    place.file("sub/a", KEY);
    let ran = place.scan(&[]);
    assert_eq!(ran.code, 10);
    assert_eq!(
        ran.stdout,
        "sub/a:1:1: aws-access-key: AWS access key: ********\n"
    );
    assert_eq!(
        ran.stderr,
        "note: pipe: skipped: a pipe, a socket or a device\n\
         note: socket: skipped: a pipe, a socket or a device\n\
         1 finding in 1 file, 20 B\n"
    );
    let told = place.scan(&["--verbose"]).stderr;
    assert!(told.contains("out: skipped: a symbolic link\n"), "{told}");

    // Who names a link means what it points to.
    assert_eq!(place.found(&["out"]), ["out"]);
    assert_eq!(place.found(&["self"]), ["self/sub/a"]);
    // A device never ends, so it is refused rather than believed to be clean.
    let ran = place.scan(&["/dev/zero", "socket"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    // A pipe that is named is a shell's `<(command)`.
    let child = place.command(&["pipe"]).spawn().unwrap();
    fs::write(place.path("pipe"), KEY).unwrap();
    let ran = finish(child);
    assert_eq!(
        ran.stdout,
        "pipe:1:1: aws-access-key: AWS access key: ********\n"
    );
}

#[test]
fn names_cannot_drive_a_terminal() {
    let place = Place::new();
    let names: [&[u8]; 6] = [
        b"e\x1b]0;title\x07",
        b"line\nbreak:1:1: fake",
        "bidi\u{202e}txt.exe".as_bytes(),
        b"not\xffutf8",
        b"-",
        b"--help",
    ];
    for name in names {
        place.file(OsStr::from_bytes(name), format!("\u{202e}\x1b[2J {KEY}"));
    }
    for format in ["text", "json", "sarif"] {
        let ran = place.scan(&["--verbose", "--format", format]);
        assert_eq!(ran.code, 10);
        for text in [&ran.stdout, &ran.stderr] {
            let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(bad), "{text:?}");
        }
        if format == "text" {
            assert_eq!(ran.stdout.lines().count(), names.len());
        }
    }
    let found = place.found(&[]);
    assert_eq!(
        found,
        [
            "-",
            "--help",
            "bidi\u{202e}txt.exe",
            "e\u{1b}]0;title\u{7}",
            "line\nbreak:1:1: fake",
            "not\\xffutf8",
        ],
        "JSON still says what they are"
    );
    let mut odd = place.command(&[]);
    odd.arg(OsString::from_vec(b"missing\xff\x1b".to_vec()));
    let ran = finish(odd.spawn().unwrap());
    assert!(
        ran.stderr.starts_with("error: missing\\xff\\u{1b}: "),
        "{ran:?}"
    );
}

#[test]
fn a_baseline_hides_what_it_lists_and_nothing_else() {
    let place = Place::new();
    place
        .file("old.py", format!("a = 1\nkey = '{KEY}'\n"))
        .file("twice.py", format!("k = '{KEY}'\nk = '{KEY}'\n"));
    let base = place.directory.path().join("base.json");
    let base = base.to_str().unwrap();
    let ran = place.scan(&["--format", "json", "--output", base]);
    assert_eq!((ran.code, ran.stdout.as_str()), (10, ""));
    let ran = place.scan(&["--baseline", base]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert_eq!(
        ran.stderr,
        "0 findings in 2 files, 89 B; 3 in the baseline\n"
    );

    // Lines may move; another file, another line and one more of the same are new.
    place
        .file(
            "old.py",
            format!("\n\n\na = 2\n  key = '{KEY}'\nother = {KEY}\n"),
        )
        .file(
            "twice.py",
            format!("k = '{KEY}'\nk = '{KEY}'\nk = '{KEY}'\n"),
        )
        .file("new.py", format!("key = '{KEY}'\n"));
    let lines: Vec<(String, u64)> = place
        .json(&["--baseline", base])
        .iter()
        .map(|entry| {
            (
                entry["path"].as_str().unwrap().into(),
                entry["line"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("new.py".into(), 1),
            ("old.py".into(), 6),
            ("twice.py".into(), 3)
        ]
    );

    // A report may be written over the baseline that it was made with.
    let ran = place.scan(&["--baseline", base, "-o", base, "--format", "json"]);
    assert_eq!(ran.code, 10);
    let text = fs::read_to_string(base).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Value>>(&text).unwrap().len(), 3);

    place.file("sarif.json", "{\"runs\": []}");
    for wrong in ["sarif.json", "missing.json"] {
        let ran = place.scan(&["--baseline", wrong]);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        assert!(ran.stderr.contains("is no baseline") && ran.stderr.contains("hint: "));
    }
}

#[test]
fn a_comment_allows_its_line() {
    let place = Place::new();
    place.file(
        "a.py",
        format!(
            "a = '{KEY}' # gitleaks:allow\nb = '{KEY}'\n# bot-bottle:allow\nc = '{KEY}'; d = '{KEY}' # bot-bottle:allow\n"
        ),
    );
    let lines = |arguments: &[&str]| -> Vec<u64> {
        place
            .json(arguments)
            .iter()
            .map(|entry| entry["line"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(lines(&[]), [2]);
    assert_eq!(lines(&["--no-allow-comments"]), [1, 2, 4, 4]);
    assert!(
        place
            .scan(&[])
            .stderr
            .ends_with("; 3 allowed by a comment\n")
    );
    // Nor does one in the line below allow anything.
    place.file("a.py", format!("a = {KEY}\nb = 1 # gitleaks:allow\n"));
    assert_eq!(lines(&[]), [1]);
    // One mark does not allow a minified file.
    let line = format!("{KEY} {} gitleaks:allow", "x ".repeat(5000));
    place.file("a.py", line);
    assert_eq!(lines(&[]), [1]);
}

#[test]
fn what_is_too_much_to_list_is_said_and_cannot_be_allowed() {
    let place = Place::new();
    place.file(
        "a.py",
        format!("k = '{KEY}' # gitleaks:allow\n").repeat(5000),
    );
    assert_eq!(place.scan(&[]).code, 10);
    let base = place.path("../base.json");
    let base = base.to_str().unwrap();
    place.scan(&["--no-allow-comments", "--format", "json", "-o", base]);
    let entries = place.json(&["--baseline", base]);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["structural"], true);
}

#[test]
fn the_report_goes_where_it_is_told() {
    let place = Place::new();
    place.file("a", KEY);
    let report = place.path("report.txt");
    fs::write(&report, "x".repeat(10_000)).unwrap();
    let ran = place.scan(&["--output", "report.txt", "a"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (10, ""));
    assert_eq!(
        fs::read_to_string(&report).unwrap(),
        "a:1:1: aws-access-key: AWS access key: ********\n"
    );
    let ran = place.scan(&["--output", "-", "a"]);
    assert_eq!(ran.stdout.lines().count(), 1);
    let ran = place.scan(&["--output", "no/such/report.txt", "a"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("no/such/report.txt cannot be written"));
    if Path::new("/dev/full").exists() {
        assert_eq!(place.scan(&["--output", "/dev/full", "a"]).code, 1);
    }
    // Whoever reads our output may stop at any time.
    let mut child = place.command(&["a"]).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(10));
    assert!(!said.contains("error"), "{said}");
}

#[test]
fn no_credential_is_ever_shown() {
    let mut place = Place::new();
    place.environment.push(("EGRESS_TOKEN_X", KNOWN.into()));
    let mut secrets = vec![KNOWN];
    place
        .file("known", KNOWN)
        .file(format!("{KEY}/{KEY}.txt"), KEY);
    for case in TOKEN_CASES {
        for (at, token) in case.positive.iter().enumerate() {
            place.file(
                format!("{}-{at}", case.rule),
                format!("{token}\nx='{token}'; y={token} {KNOWN}\n"),
            );
            secrets.push(token);
        }
    }
    for format in ["text", "json", "sarif"] {
        let ran = place.scan(&[
            "--verbose",
            "--known-from-env",
            "--no-allow-comments",
            "--format",
            format,
            ".",
            KEY,
            &format!("missing-{KEY}"),
        ]);
        assert_eq!(ran.code, 10, "{ran:?}");
        for secret in &secrets {
            for text in [&ran.stdout, &ran.stderr] {
                assert!(!text.contains(secret), "{format} shows {secret}");
            }
        }
        // Every one was found, for what is not found is not shown either.
        if format == "text" {
            for case in TOKEN_CASES {
                for at in 0..case.positive.len() {
                    let prefix = format!("{}-{at}:", case.rule);
                    let of = |rule: &str| {
                        ran.stdout
                            .lines()
                            .filter(|line| line.starts_with(&prefix) && line.contains(rule))
                            .count()
                    };
                    assert_eq!(of(&format!(" {}: ", case.rule)), 3, "{prefix}");
                    assert_eq!(of(" known-secret: EGRESS_TOKEN_X: "), 1, "{prefix}");
                }
            }
        }
    }
}

#[test]
fn values_of_the_environment() {
    let mut place = Place::new();
    let encoded = {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode(KNOWN)
    };
    place
        .file("plain", format!("token: {KNOWN}"))
        .file("encoded", format!("token: {encoded}"));
    place.environment.push(("EGRESS_TOKEN_X", KNOWN.into()));
    assert_eq!(place.scan(&[]).code, 0, "only where it is asked for");
    let ran = place.scan(&["--known-from-env"]);
    assert_eq!(ran.code, 10);
    let starts = [
        "encoded:1:8: known-secret: EGRESS_TOKEN_X via base64: token: ********",
        "plain:1:8: known-secret: EGRESS_TOKEN_X: token: ********",
    ];
    for (line, start) in ran.stdout.lines().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    assert_eq!(ran.stdout.lines().count(), starts.len());
    place.environment = vec![("CORP_KEY", KNOWN.into())];
    let ran = place.scan(&["--known-from-env"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.stderr
            .starts_with("note: --known-from-env: no variable")
    );
    place
        .environment
        .push(("BOT_BOTTLE_SENSITIVE_PREFIXES", "CORP_".into()));
    assert_eq!(place.scan(&["--known-from-env"]).code, 10);
    place.environment = vec![("EGRESS_TOKEN_X", "tiny-77".into())];
    let ran = place.scan(&["--known-from-env"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("EGRESS_TOKEN_X") && !ran.stderr.contains("tiny-77"));
    // What is not text cannot be a token in a header, and that is said.
    place.environment = vec![("EGRESS_TOKEN_X", OsString::from_vec(vec![0xff; 20]))];
    let ran = place.scan(&["--known-from-env"]);
    assert!(
        ran.stderr.contains("EGRESS_TOKEN_X is not UTF-8"),
        "{ran:?}"
    );
}

#[test]
fn rules_of_the_user() {
    let place = Place::new();
    let rules = "[[rule]]\nid = \"acme-key\"\ncredential = \"Acme key\"\nshape = 'acme_[a-z0-9]{20,}'\n\
                 positive = [\"acme_aaaaaaaaaaaaaaaaaaaa\"]\nnegative = [\"acme_short\"]\n";
    let key = "acme_bbbbbbbbbbbbbbbbbbbbbbbb";
    place
        .file("../rules.toml", rules)
        .file("../bad.toml", rules.replace("acme-key", "Acme\u{202e}"))
        .file("a", format!("k = '{key}'"));
    assert_eq!(place.scan(&[]).code, 0);
    let ran = place.scan(&["--rules", "../rules.toml"]);
    assert_eq!(ran.code, 10, "{ran:?}");
    assert_eq!(ran.stdout, "a:1:6: acme-key: Acme key: k = '********'\n");
    let sarif = place
        .scan(&["--rules", "../rules.toml", "--format", "sarif"])
        .stdout;
    let log: Value = serde_json::from_str(&sarif).unwrap();
    let index = log["runs"][0]["results"][0]["ruleIndex"].as_u64().unwrap() as usize;
    let rule = &log["runs"][0]["tool"]["driver"]["rules"][index];
    assert_eq!(rule["shortDescription"]["text"], "Acme key");
    let ran = place.scan(&["--rules", "../bad.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(
        ran.stderr
            .starts_with("error: the rules in ../bad.toml cannot be used: line 2: "),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains('\u{202e}'));
}

#[test]
fn what_cannot_be_looked_into_is_said() {
    let place = Place::new();
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(300_000)
    .collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&noise).unwrap();
    let mut gzip = gzip.finish().unwrap();
    place.file("whole.gz", &gzip);
    let ran = place.scan(&["--verbose"]);
    assert!(!ran.stderr.contains("was not looked into"), "{ran:?}");
    // What breaks off could have had anything behind it.
    gzip.truncate(gzip.len() / 2);
    place.file("a.gz", gzip);
    let ran = place.scan(&["--verbose"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    assert!(ran.stderr.contains("was not looked into"), "{ran:?}");
}

#[test]
fn sizes_and_codes() {
    let place = Place::new();
    place
        .file("small", KEY)
        .file("large", format!("{KEY}{}", " ".repeat(2000)));
    let ran = place.scan(&["--max-file-size", "1K"]);
    assert_eq!(
        ran.stderr,
        "note: large: skipped: 2020 bytes, more than --max-file-size\n1 finding in 1 file, 20 B\n"
    );
    assert_eq!(place.found(&["--max-file-size", "2020"]).len(), 2);
    assert_eq!(place.scan(&["--exit-code", "0"]).code, 0);
    assert_eq!(place.scan(&["--exit-code", "77"]).code, 77);
    for wrong in [
        ["--exit-code", "256"],
        ["--max-file-size", "much"],
        ["--format", "xml"],
        ["--quiet", "--verbose"],
        ["--rules", "missing.toml"],
    ] {
        let ran = place.scan(&wrong);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{wrong:?}");
        assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    }
}

#[test]
fn every_rule_is_listed() {
    let place = Place::new();
    place.file("a", KEY);
    let ran = place.scan(&["--list-rules"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for case in TOKEN_CASES {
        assert!(
            ran.stdout
                .lines()
                .any(|line| line.split_whitespace().next() == Some(case.rule)),
            "{}",
            case.rule
        );
    }
    assert!(ran.stdout.contains("known-secret"));
    let ran = place.scan(&["--list-rules", "--format", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    assert!(rows.iter().all(|row| {
        ["id", "credential", "source"]
            .iter()
            .all(|key| row[*key].is_string())
    }));
    assert_eq!(place.scan(&["--list-rules", "--format", "sarif"]).code, 2);
}
