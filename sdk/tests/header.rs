//! `include/anatomix.h` equals the output of cbindgen for `src/capi`. `ANATOMIX_BLESS=1` writes it.

use std::fs;
use std::path::Path;

#[test]
fn the_header_matches_the_source() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = sdk.join("../include/anatomix.h");
    let config = cbindgen::Config::from_file(sdk.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new().with_config(config).with_src(sdk.join("src/capi/mod.rs")).generate().expect("src/capi");
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    // C89 has no comma behind the last name of an enum, and no line comments.
    let generated = String::from_utf8(generated).expect("UTF-8").replace(",\n}", "\n}");
    let plain = |line: &str| if line.starts_with("#endif") { "#endif\n".into() } else { format!("{line}\n") };
    let generated = shortened(&generated.lines().map(plain).collect::<String>());
    assert_complete(&generated, &sdk.join("src/capi"));

    if std::env::var_os("ANATOMIX_BLESS").is_some() {
        fs::write(&path, &generated).expect("include/anatomix.h is writable");
    }
    let committed = fs::read_to_string(&path).expect("include/anatomix.h; ANATOMIX_BLESS=1 makes it");
    let differing = generated.lines().zip(committed.lines()).position(|(new, old)| new != old);
    assert!(
        generated == committed,
        "include/anatomix.h is not what src/capi says, from line {:?} on; run this test again with ANATOMIX_BLESS=1",
        differing.map(|line| line + 1)
    );
}

/// The header with each description of one line on one line instead of three. Those with a backslash stay: Doxygen would read a command
/// there.
fn shortened(header: &str) -> String {
    const MAX_COLUMNS: usize = 140;
    let lines: Vec<&str> = header.lines().collect();
    let (mut kept, mut at) = (String::new(), 0);
    while at < lines.len() {
        let text = match lines[at..] {
            [first, text, last, ..] if first.trim() == "/**" && last.trim() == "*/" => text.trim_start().strip_prefix("* "),
            _ => None,
        };
        let joined =
            text.map(|text| format!("{} {text} */", lines[at])).filter(|joined| joined.len() <= MAX_COLUMNS && !joined.contains('\\'));
        at += if joined.is_some() { 3 } else { 1 };
        kept += &joined.unwrap_or_else(|| lines[at - 1].into());
        kept.push('\n');
    }
    kept
}

/// Checks that the header has all functions, because cbindgen silently omits what it cannot parse.
fn assert_complete(header: &str, folder: &Path) {
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("src/capi") {
        let source = fs::read_to_string(entry.expect("an entry").path()).expect("a source file");
        for rest in source.split("extern \"C\" fn anx_").skip(1) {
            let name = format!("anx_{}(", rest.split('(').next().unwrap_or_default());
            assert!(header.contains(&name), "{name}) is not in the header");
            count += 1;
        }
    }
    assert!(count > 40, "only {count} functions were found");
}
