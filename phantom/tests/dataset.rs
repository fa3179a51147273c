//! Data sets: files can be read back, equal options give equal bytes, and errors name the file.

use anatomix_phantom::Scene;
use anatomix_phantom::dataset::{self, Options};
use std::path::Path;

fn options(out: &Path, count: u64, seed: u64) -> Options {
    Options { out: out.into(), count, seed, size: 160, dicom_every: 1, markers: true }
}

#[test]
fn a_data_set_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let done = std::sync::atomic::AtomicU64::new(0);
    dataset::write(&options(folder.path(), 5, 40), |n| {
        done.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(done.into_inner(), 5);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for line in read("instruct.jsonl").lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["image"].as_str().unwrap().starts_with("phantom-") && value["answer"].is_string());
    }
    assert_eq!(read("mimic-cxr-2.0.0-split.csv").lines().count(), 6);
    assert_eq!(read("mimic-cxr-2.0.0-chexpert.csv").lines().next().unwrap().split(',').count(), 16);
    for seed in 40..45 {
        let scene = Scene::sample_sized(seed, 160);
        let id = scene.id();
        let graph: serde_json::Value = serde_json::from_str(&read(&format!("silver_dataset/scene_graph/{id}_SceneGraph.json"))).unwrap();
        assert_eq!(graph["objects"][0]["original_width"], scene.frame.width);
        assert!(read(&format!("reports/{id}.txt")).contains("IMPRESSION: "));
        let picture = image::open(folder.path().join(format!("images/{id}.png"))).unwrap();
        assert_eq!((picture.width(), picture.height()), (scene.frame.width, scene.frame.height));

        let file = dicom_object::open_file(folder.path().join(format!("dicom/{id}.dcm"))).unwrap();
        let text = |name: &str| file.element_by_name(name).unwrap().to_str().unwrap().trim_end().to_string();
        assert_eq!(text("PatientOrientation"), "L\\F");
        assert_eq!(text("ViewPosition"), if scene.ap_view { "AP" } else { "PA" });
        assert_eq!(text("PhotometricInterpretation"), if seed % 2 == 1 { "MONOCHROME1" } else { "MONOCHROME2" });
        let words: Vec<u16> = file.element_by_name("PixelData").unwrap().to_multi_int().unwrap();
        assert_eq!(words.len(), (scene.frame.width * scene.frame.height) as usize);
        assert!(words.iter().all(|&v| v < 4096));
        // The DICOM file and the PNG show the same picture.
        let gray = picture.to_luma8();
        for (&word, pixel) in words.iter().zip(gray.pixels()) {
            let level = f32::from(if seed % 2 == 1 { 4095 - word } else { word }) / 4095.0;
            assert!((level - f32::from(pixel.0[0]) / 255.0).abs() < 0.003);
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn writing_again_changes_nothing() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&a, &b] {
        dataset::write(&options(folder.path(), 3, 7), |_| ()).unwrap();
    }
    for name in ["instruct.jsonl", "mimic-cxr-2.0.0-split.csv", "images/phantom-0000008.png", "dicom/phantom-0000008.dcm"] {
        assert_eq!(std::fs::read(a.path().join(name)).unwrap(), std::fs::read(b.path().join(name)).unwrap(), "{name}");
    }
}

#[test]
fn an_unusable_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("taken");
    std::fs::write(&file, "a file, no folder").unwrap();
    let message = dataset::write(&options(&file, 1, 0), |_| ()).unwrap_err().to_string();
    assert!(message.contains("taken") && message.contains("writable"), "{message}");
    // A picture that cannot be renamed to its path leaves no partial file.
    let out = folder.path().join("out");
    std::fs::create_dir_all(out.join("images/phantom-0000000.png/x")).unwrap();
    let message = dataset::write(&options(&out, 1, 0), |_| ()).unwrap_err().to_string();
    assert!(message.contains("phantom-0000000.png"), "{message}");
    assert!(!out.join("images/phantom-0000000.png.part").exists() && !out.join("instruct.jsonl").exists());
}
