//! Properties of all phantoms: geometry, sentences and labels agree with each other.

use anatomix::{Label, PixelBox, Structure, Task};
use anatomix_phantom::{Scene, tasks};
use std::collections::{BTreeSet, HashMap};

fn structure(name: &str) -> Structure {
    Structure::from_name(name).unwrap_or_else(|| panic!("no structure {name}"))
}

#[test]
fn equal_seeds_give_equal_pictures() {
    for seed in [3, 1_000_004] {
        let (a, b) = (Scene::sample(seed), Scene::sample(seed));
        assert_eq!(a.render().data, b.render().data);
        assert_eq!(tasks::samples(&a, 0), tasks::samples(&b, 0));
        assert_ne!(a.render().data, Scene::sample(seed + 1).render().data);
    }
}

#[test]
fn a_picture_without_markers_differs_in_them_only() {
    let mut marked = 0;
    for seed in 0..12 {
        let with = Scene::sample_sized(seed, 160);
        let mut without = with.clone();
        without.markers = false;
        let (a, b) = (with.render().data, without.render().data);
        let differs = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        marked += usize::from(differs > 0);
        assert!(differs < a.len() / 40, "{seed}: {differs} of {} pixels differ", a.len());
        assert_eq!(tasks::samples(&with, 0), tasks::samples(&without, 0));
    }
    assert!((4..12).contains(&marked), "{marked} pictures have markers; six to nine in ten have");
}

#[test]
fn boxes_lie_in_the_picture_and_in_order() {
    let inside = |inner: PixelBox, outer: PixelBox| {
        inner.x0 >= outer.x0 - 2.0 && inner.y0 >= outer.y0 - 2.0 && inner.x1 <= outer.x1 + 2.0 && inner.y1 <= outer.y1 + 2.0
    };
    for seed in 0..300 {
        let scene = Scene::sample(seed);
        let (w, h) = (scene.frame.width as f32, scene.frame.height as f32);
        for s in Structure::all() {
            let Some(b) = scene.structure_box(s) else { continue };
            assert!(b.x0 >= 0.0 && b.y0 >= 0.0 && b.x1 <= w && b.y1 <= h && b.area() > 0.0, "{seed} {s} {b}");
        }
        for (side, lung) in [("left", Structure::LEFT_LUNG), ("right", Structure::RIGHT_LUNG)] {
            let lung = scene.structure_box(lung).expect("lungs are never out of the picture");
            for zone in ["upper", "mid", "lower"] {
                if let Some(b) = scene.structure_box(structure(&format!("{side} {zone} lung zone"))) {
                    assert!(inside(b, lung), "{seed} {side} {zone} {b} {lung}");
                }
            }
        }
        let middle = |s: Structure| scene.structure_box(s).map(|b| (b.x0 + b.x1) / 2.0);
        let (left, right) = (middle(Structure::LEFT_LUNG), middle(Structure::RIGHT_LUNG));
        assert_eq!(left > right, !scene.frame.mirrored, "{seed}: the patient's left is on the picture's right");
    }
}

#[test]
fn words_and_labels_agree() {
    let mut vocabulary: HashMap<Structure, BTreeSet<String>> = HashMap::new();
    let mut labels = [0usize; Label::ALL.len()];
    const SCENES: usize = 3000;
    for seed in 0..SCENES as u64 {
        let scene = Scene::sample(seed);
        let flags = scene.labels();
        for (count, flag) in labels.iter_mut().zip(flags) {
            *count += usize::from(flag);
        }
        for s in Structure::all() {
            let sentence = scene.sentence(s);
            assert_eq!(sentence.ends_with("is healthy."), scene.attributes(s).is_empty(), "{seed} {sentence}");
            vocabulary.entry(s).or_default().insert(sentence);
        }
        let abnormal = scene.findings.iter().any(|f| !f.kind.is_device());
        assert_eq!(flags[Label::NoFinding.index()], !abnormal, "{seed}");
        assert_eq!(flags[Label::Fracture.index()], scene.findings.iter().any(|f| f.kind.name().ends_with("fracture")));
        let opacity = Structure::all().any(|s| scene.sentence(s).contains("lung opacity"));
        assert_eq!(flags[Label::LungOpacity.index()], opacity, "{seed}");
    }
    // A lung shows the findings of all its zones, so it has more sentences than the other structures.
    for (s, sentences) in &vocabulary {
        let limit = if matches!(*s, Structure::LEFT_LUNG | Structure::RIGHT_LUNG) { 60 } else { 25 };
        assert!(sentences.len() <= limit, "{s}: {} sentences", sentences.len());
    }
    for label in Label::ALL {
        let share = labels[label.index()] as f32 / SCENES as f32;
        assert!((0.05..0.45).contains(&share), "{label}: {share}");
    }
}

#[test]
fn samples_cover_all_tasks_and_balance_yes_and_no() {
    let mut tasks_seen = BTreeSet::new();
    let (mut yes, mut no) = (0, 0);
    for seed in 0..300 {
        let scene = Scene::sample(seed);
        for sample in tasks::samples(&scene, 0) {
            tasks_seen.insert(sample.task.name());
            assert!(!sample.question.contains("{}") && !sample.answer.is_empty(), "{sample:?}");
            match sample.answer.as_str() {
                "Yes" => yes += 1,
                "No" => no += 1,
                _ => {}
            }
            if sample.task == Task::PhraseGrounding {
                assert!(sample.answer.contains("<box>") && !sample.boxes.is_empty(), "{sample:?}");
            }
        }
    }
    assert_eq!(tasks_seen.len(), Task::ALL.len());
    let share = yes as f32 / (yes + no) as f32;
    assert!((0.35..0.65).contains(&share), "{share} of the closed questions are answered by yes");
}
