use super::format::{Problem, tables, verify};
use super::*;
use crate::anatomy::Structure;
use proptest::prelude::*;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use tempfile::TempDir;

const WIDTH: usize = 5;

/// Sentences with characters of one to three bytes in UTF-8, and pseudo-random embeddings.
fn lists(counts: impl Fn(Structure) -> usize, width: usize) -> Vec<SentenceList> {
    let mut state = 1u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    Structure::all()
        .map(|structure| SentenceList {
            sentences: (0..counts(structure)).map(|i| format!("{structure} shows größe {i} ✓.")).collect(),
            embeddings: (0..counts(structure) * width).map(|_| value()).collect(),
        })
        .collect()
}

fn written(lists: &[SentenceList]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sentences.safetensors");
    write(&path, lists).unwrap();
    (folder, path)
}

fn bytes() -> Vec<u8> {
    let (_folder, path) = written(&lists(|s| 1 + s.index() % 2, WIDTH));
    fs::read(path).unwrap()
}

/// Position of a tensor in a file, in bytes.
fn place(bytes: &[u8], name: &str) -> usize {
    let (length, header) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    8 + length + header.info(name).unwrap().data_offsets.0
}

/// The checks of opening, then those of `verify`.
fn check(bytes: &[u8]) -> Result<(), Problem> {
    verify(bytes, &tables(bytes, WIDTH)?, WIDTH)
}

fn message(bytes: &[u8]) -> String {
    check(bytes).expect_err("damaged").at("a/b.safetensors".as_ref(), WIDTH).to_string()
}

/// The bytes of a database, with `new` written into a tensor from byte `at` on.
fn damaged(original: &[u8], name: &str, at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let start = place(&bytes, name) + at;
    bytes[start..start + new.len()].copy_from_slice(new);
    bytes
}

/// Opens a database of these bytes, which may be damaged.
fn opened(bytes: &[u8]) -> (TempDir, Result<SentenceDatabase, RetrievalError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sentences.safetensors");
    fs::write(&path, bytes).unwrap();
    let database = SentenceDatabase::open(&path, WIDTH);
    (folder, database)
}

#[test]
fn reads_what_was_written() {
    let lists = lists(|s| 1 + s.index() * 3, WIDTH);
    let (_folder, path) = written(&lists);
    let database = SentenceDatabase::open(&path, WIDTH).unwrap();
    database.verify().unwrap();
    for (structure, list) in Structure::all().zip(&lists) {
        assert_eq!(database.len(structure), list.sentences.len());
        for (index, sentence) in list.sentences.iter().enumerate() {
            assert_eq!(database.sentence(structure, index).unwrap(), sentence);
            let query = &list.embeddings[index * WIDTH..][..WIDTH];
            let hits = database.search(structure, query, 1).unwrap();
            assert_eq!(hits[0].index, index);
            assert!((hits[0].similarity - 1.0).abs() < 1e-6);
        }
        assert_eq!(database.sentence(structure, list.sentences.len()).unwrap(), "");
        assert_eq!(database.sentence(structure, usize::MAX).unwrap(), "");
    }
}

#[test]
fn writes_the_same_bytes_and_other_libraries_read_them() {
    let lists = lists(|_| 3, WIDTH);
    let (_a, first) = written(&lists);
    let (_b, second) = written(&lists);
    let bytes = fs::read(first).unwrap();
    assert_eq!(bytes, fs::read(second).unwrap());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 3 * 36);
    let embeddings = file.tensor("35.embeddings").unwrap();
    assert_eq!((embeddings.dtype(), embeddings.shape()), (safetensors::Dtype::F32, &[3, WIDTH][..]));
    assert_eq!(place(&bytes, "00.offsets") % 8, 0);
    assert_eq!(place(&bytes, "00.embeddings") % 64, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Few distinct values and rows make many similarities tie. Width 16, the published one, has a code path of its own.
    #[test]
    fn search_equals_brute_force(
        width in prop_oneof![1usize..40, Just(16)],
        distinct in 1usize..60,
        rows in prop::collection::vec(prop::collection::vec(-2i8..=2, 40), 1..60),
        query in prop::collection::vec(-2i8..=2, 40),
        k in 0usize..70,
    ) {
        let floats = |row: &[i8]| row[..width].iter().map(|&v| f32::from(v)).collect::<Vec<f32>>();
        let mut lists = lists(|_| 1, width);
        let mut embeddings: Vec<Vec<f32>> = rows[..distinct.min(rows.len())].iter().map(|r| floats(r)).cycle().take(rows.len()).collect();
        for row in embeddings.iter_mut().filter(|row| row.iter().all(|&v| v == 0.0)) {
            row[0] = 1.0;
        }
        let sentences = (0..rows.len()).map(|i| i.to_string()).collect();
        lists[4] = SentenceList { sentences, embeddings: embeddings.concat() };
        let (_folder, path) = written(&lists);
        let database = SentenceDatabase::open(&path, width).unwrap();
        let query = floats(&query);
        let hits = database.search(Structure::HEART, &query, k).unwrap();

        let norm = |row: &[f32]| row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let similarity = |row: &[f32]| {
            let dot: f64 = row.iter().zip(&query).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            if norm(&query) == 0.0 { 0.0 } else { dot / norm(row) / norm(&query) }
        };
        let expected: Vec<f64> = embeddings.iter().map(|row| similarity(row)).collect();
        prop_assert_eq!(hits.len(), k.min(rows.len()));
        for pair in hits.windows(2) {
            prop_assert!(pair[0].similarity > pair[1].similarity
                || (pair[0].similarity == pair[1].similarity && pair[0].index < pair[1].index));
        }
        for hit in &hits {
            prop_assert!((f64::from(hit.similarity) - expected[hit.index]).abs() < 1e-5);
        }
        // No other row is better than the worst hit, and equal rows come in the order of their indices.
        let chosen: Vec<usize> = hits.iter().map(|hit| hit.index).collect();
        if let Some(worst) = hits.last() {
            for index in (0..rows.len()).filter(|i| !chosen.contains(i)) {
                prop_assert!(expected[index] <= f64::from(worst.similarity) + 1e-5);
                for &other in chosen.iter().filter(|&&c| embeddings[c] == embeddings[index]) {
                    prop_assert!(other < index);
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(tables(&bytes, WIDTH).is_err());
    }

    #[test]
    fn random_headers_never_panic(begin in any::<u64>(), end in any::<u64>(), rows in any::<u64>(), width in any::<u64>()) {
        let metadata = r#""__metadata__":{"format":"anatomix-sentences","version":"1"}"#;
        let tensor = format!(r#"{{"dtype":"F32","shape":[{rows},{width}],"data_offsets":[{begin},{end}]}}"#);
        let header = format!(r#"{{{metadata},"00.embeddings":{tensor}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        prop_assert!(tables(&bytes, WIDTH).is_err());
    }
}

#[test]
fn queries_that_are_not_finite_or_of_another_width() {
    let (_folder, path) = written(&lists(|_| 3, WIDTH));
    let database = SentenceDatabase::open(&path, WIDTH).unwrap();
    for query in [[0.0; WIDTH], [f32::NAN; WIDTH], [f32::INFINITY; WIDTH]] {
        let hits = database.search(Structure::HEART, &query, 2).unwrap();
        assert_eq!(hits, [Hit { index: 0, similarity: 0.0 }, Hit { index: 1, similarity: 0.0 }]);
    }
    let search = |query: &[f32], k| database.search(Structure::HEART, query, k).unwrap();
    assert!(search(&[f32::MAX; WIDTH], 3).iter().all(|h| h.similarity.abs() <= 1.0));
    assert!(search(&[1.0; WIDTH + 1], 2).is_empty());
    assert!(search(&[1.0; WIDTH], 0).is_empty());
}

#[test]
fn truncated_anywhere_is_an_error_that_names_the_path() {
    let bytes = bytes();
    for length in (0..bytes.len()).step_by(7) {
        assert!(message(&bytes[..length]).contains("a/b.safetensors"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = SentenceDatabase::open(&path, WIDTH).unwrap_err().to_string();
    assert!(error.contains("half.safetensors") && error.contains("restore the bundle"), "{error}");
    fs::write(&path, b"").unwrap();
    assert!(SentenceDatabase::open(&path, WIDTH).unwrap_err().to_string().contains("only 0 bytes"));
}

#[test]
fn flipped_bits_never_panic() {
    let bytes = bytes();
    for place in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= mask;
            // A flipped letter is another letter; anything but a valid database must say which file it is.
            if let Err(problem) = check(&damaged) {
                assert!(problem.at("a/b.safetensors".as_ref(), WIDTH).to_string().contains("a/b.safetensors"));
            }
        }
    }
}

#[test]
fn a_verified_database_can_be_used_and_a_damaged_one_never_panics() {
    let bytes = bytes();
    let queries: Vec<f32> = (0..36 * WIDTH).map(|i| (i as f32).sin()).collect();
    let mut opened_damaged = 0;
    for place in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0xff;
        let (_folder, Ok(database)) = opened(&damaged) else { continue };
        let whole = database.verify().is_ok();
        opened_damaged += usize::from(!whole);
        assert!(database.search_all(&queries, 2).is_ok() || !whole);
        for structure in Structure::all() {
            assert!((0..=database.len(structure)).all(|index| database.sentence(structure, index).is_ok()) || !whole);
        }
    }
    assert!(opened_damaged > 100, "{opened_damaged} damaged databases were opened");
}

#[test]
fn damage_that_opening_does_not_check_is_an_error_where_it_is_used() {
    let original = bytes();
    let expect = |error: RetrievalError, part: &str| {
        let error = error.to_string();
        assert!(error.contains("sentences.safetensors") && error.contains(part), "{error:?} lacks {part:?}");
    };
    let [heart, fifth, seventh] = [4, 5, 7].map(|index| Structure::all().nth(index).unwrap());
    let used = |name: &str, at: usize, new: &[u8]| {
        let (folder, database) = opened(&damaged(&original, name, at, new));
        let database = database.unwrap();
        database.verify().unwrap_err();
        (folder, database)
    };
    let (_folder, database) = used("04.text", 0, &[0xff]);
    expect(database.sentence(heart, 0).unwrap_err(), "sentence 0 in the tensor 04.text is not valid UTF-8");
    for middle in [0, u64::MAX, 1 << 60] {
        let (_folder, database) = used("05.offsets", 8, &middle.to_le_bytes());
        expect(database.sentence(fifth, 0).unwrap_err(), "not a range of the text");
        assert_eq!(database.sentence(fifth, 2).unwrap(), "");
        assert!(database.sentence(heart, 0).is_ok());
    }
    // An embedding that is not finite, or a hit with a norm other than 1, is an error.
    for (value, length) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::MAX, "340282"), (9.0, "instead of 1")] {
        let (_folder, database) = used("07.embeddings", 0, &value.to_le_bytes());
        let query = [1.0, 0.0, 0.0, 0.0, 0.0];
        expect(database.search(seventh, &query, 1).unwrap_err(), length);
        expect(database.search_all(&query.repeat(36), 1).unwrap_err(), "row 0 of 07.embeddings has the norm");
        assert!(database.search(heart, &query, 1).is_ok());
    }
}

/// Opening leaves most of the file outside of memory. A search then raises the figure, which shows that it is measured.
#[test]
#[cfg(target_os = "linux")]
fn opening_a_large_database_does_not_read_it() {
    const ROWS: usize = 100_000;
    const TEXT: usize = 5 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    let (mut tensors, mut end, mut ends) = (Vec::new(), 0, Vec::new());
    for (part, dtype, shape, bytes) in [
        ("offsets", "U64", format!("[{}]", ROWS + 1), 8 * (ROWS + 1)),
        ("embeddings", "F32", format!("[{ROWS},{WIDTH}]"), 4 * ROWS * WIDTH),
        ("text", "U8", format!("[{TEXT}]"), TEXT),
    ] {
        for index in 0..36 {
            let begin = end;
            end += bytes;
            tensors.push(format!(r#""{index:02}.{part}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#));
            if part == "offsets" {
                ends.push(end - 8);
            }
        }
    }
    let mut header = format!(r#"{{"__metadata__":{{"format":"anatomix-sentences","version":"1"}},{}}}"#, tensors.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    // The rest of the file is a hole, which reads as zeros.
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    for place in ends {
        file.seek(SeekFrom::Start((8 + header.len() + place) as u64)).unwrap();
        file.write_all(&(TEXT as u64).to_le_bytes()).unwrap();
    }
    let size = 8 + header.len() + end;
    file.set_len(size as u64).unwrap();
    drop(file);

    let resident = || {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = maps.lines().skip_while(|line| !line.contains("large.safetensors"));
        let line = ours.into_iter().find_map(|line| line.strip_prefix("Rss:")).expect("the mapping");
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    };
    let database = SentenceDatabase::open(&path, WIDTH).unwrap();
    let opened = resident();
    assert!(opened < size / 16, "opening mapped {opened} of {size} bytes");
    // The search reads every row, and its hit has norm 0.
    let error = database.search(Structure::HEART, &[1.0; WIDTH], 1).unwrap_err().to_string();
    assert!(error.contains("has the norm 0 instead of 1"), "{error}");
    let searched = resident();
    assert!(searched >= opened + 4 * ROWS * WIDTH / 2, "{opened} bytes, then {searched}");
}

#[test]
fn unaligned_embeddings_are_read_too() {
    let lists = lists(|_| 3, WIDTH);
    let (_folder, path) = written(&lists);
    let mut bytes = fs::read(&path).unwrap();
    // One more blank in the header moves all data by a byte.
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes.insert(8 + length, b' ');
    bytes[..8].copy_from_slice(&(length as u64 + 1).to_le_bytes());
    let (_other, odd) = opened(&bytes);
    let (odd, even) = (odd.unwrap(), SentenceDatabase::open(&path, WIDTH).unwrap());
    odd.verify().unwrap();
    for query in lists[4].embeddings.chunks_exact(WIDTH) {
        assert_eq!(odd.search_all(&query.repeat(36), 3).unwrap(), even.search_all(&query.repeat(36), 3).unwrap());
    }
}

#[test]
fn each_damage_is_named() {
    let original = bytes();
    let damaged = |name: &str, at: usize, new: &[u8]| message(&damaged(&original, name, at, new));
    let expect = |message: String, part: &str| assert!(message.contains(part), "{message:?} lacks {part:?}");
    expect(damaged("04.text", 0, &[0xff]), "04.text is not valid UTF-8");
    expect(damaged("04.offsets", 0, &1u64.to_le_bytes()), "the first is not 0");
    expect(damaged("05.offsets", 8, &0u64.to_le_bytes()), "ends before it begins");
    expect(damaged("05.offsets", 8, &u64::MAX.to_le_bytes()), "beyond the end of the text");
    let inside = "Descending aorta shows gr".len() as u64 + 1;
    expect(damaged("05.offsets", 8, &inside.to_le_bytes()), "within a character");
    expect(damaged("04.offsets", 8, &5u64.to_le_bytes()), "not the end of the text");
    expect(damaged("07.embeddings", 0, &f32::NAN.to_le_bytes()), "row 0 of 07.embeddings has the norm NaN");
    expect(damaged("07.embeddings", 4, &2f32.to_le_bytes()), "instead of 1");
}

#[test]
fn each_wrong_header_is_named() {
    let original = bytes();
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = original.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        let mut bytes = original.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        message(&bytes)
    };
    let expect = |message: String, part: &str| assert!(message.contains(part), "{message:?} lacks {part:?}");
    expect(replaced("\"version\":\"1\"", "\"version\":\"2\""), "has version 2, but this SDK supports versions up to 1; update the SDK");
    expect(replaced("\"version\":\"1\"", "\"version\":\"x\""), "does not have a supported version");
    expect(replaced("anatomix-sentences", "anatomix-pentences"), "does not name the format");
    expect(replaced("\"11.text\"", "\"xx.text\""), "the tensor 11.text is missing");
    expect(replaced("{\"dtype\":\"F32\"", "{\"dtype\":\"I32\""), "has the type I32 instead of F32");
    expect(
        replaced("\"dtype\":\"F32\",\"shape\":[1,5]", "\"dtype\":\"F32\",\"shape\":[5,1]"),
        "width 1, but the perception module gives 5",
    );
    expect(replaced("{\"__metadata__\"", "x\"__metadata__\""), "header cannot be read");
    let wider = tables(&original, WIDTH + 1).unwrap_err().at("x".as_ref(), WIDTH + 1).to_string();
    expect(wider, "holds embeddings of width 5, but the perception module gives 6; export the bundle again");
}

#[test]
fn folders_missing_files_and_bad_lists() {
    let folder = tempfile::tempdir().unwrap();
    let error = SentenceDatabase::open(folder.path(), WIDTH).unwrap_err();
    let error = crate::Error::from(error).full_message();
    assert!(error.contains("it is not a regular file"), "{error}");
    let missing = folder.path().join("none");
    assert!(matches!(SentenceDatabase::open(&missing, WIDTH), Err(RetrievalError::Read { .. })));
    let path = folder.path().join("out");
    let refused = |change: &dyn Fn(&mut Vec<SentenceList>), part: &str| {
        let mut lists = lists(|_| 2, WIDTH);
        change(&mut lists);
        let error = write(&path, &lists).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("out"), "{error}");
        assert!(!path.exists());
    };
    refused(&|l| drop(l.pop()), "35 lists instead of 36");
    refused(&|l| l[3] = SentenceList::default(), "has 0 sentences");
    refused(&|l| l[3].sentences[1].clear(), "sentence 1 of Apical zone of right lung is empty");
    refused(&|l| l[3].embeddings[2] = f32::NAN, "zero or not finite");
    refused(&|l| l[3].embeddings.truncate(7), "7 values for 2 embeddings");
    let nowhere = folder.path().join("no/such/folder/out");
    assert!(matches!(write(&nowhere, &lists(|_| 1, 1)), Err(RetrievalError::Write { .. })));
}

#[test]
fn a_sentence_without_its_name() {
    let spine = Structure::new(30).unwrap();
    assert_eq!(noted(Structure::LEFT_LUNG, "left lung shows edema and nodule."), "edema and nodule");
    assert_eq!(noted(spine, "Scoliosis is seen."), "Scoliosis is seen");
    // Cutting at the name's length must not split a letter.
    assert_eq!(noted(spine, "ééééééééé"), "ééééééééé");
}
