use super::*;

fn labelled(x0: f32, y0: f32, x1: f32, y1: f32, side: Option<Side>) -> LabelledBox {
    LabelledBox {
        bounds: PixelBox::new(x0, y0, x1, y1),
        label: "Left hemidiaphragm".into(),
        note: if side.is_some() { "consolidation, lung opacity and pleural effusion".into() } else { String::new() },
        side,
        emphasised: side.is_some(),
    }
}

fn blank(width: u32, height: u32) -> Radiograph {
    Radiograph::from_pixels_u8(width, height, &vec![90; width as usize * height as usize]).unwrap()
}

#[test]
fn any_size_and_shape_is_drawn() {
    for (width, height) in [(32, 32), (40, 4000), (20_000, 32), (3000, 2500), (1000, 1200)] {
        let (w, h) = (width as f32, height as f32);
        let mut boxes = vec![
            labelled(0.6 * w, 0.1 * h, 0.9 * w, 0.8 * h, Some(Side::Left)),
            labelled(0.1 * w, 0.1 * h, 0.4 * w, 0.8 * h, Some(Side::Right)),
            // A model may give boxes that are outside of the image, inverted, empty or not finite.
            labelled(-1e9, -1e9, 1e9, 1e9, None),
            labelled(0.5 * w, 0.5 * h, 0.2 * w, 0.2 * h, None),
            labelled(w, h, w, h, None),
            labelled(f32::NAN, 0.0, f32::INFINITY, 9.0, None),
        ];
        boxes.extend((0..60).map(|_| labelled(0.6 * w, 0.1 * h, 0.9 * w, 0.2 * h, Some(Side::Left))));
        let picture = Overlay::new(&blank(width, height), boxes).unwrap().subtitle("x ".repeat(500)).render();
        let longest = picture.width().max(picture.height());
        assert!((980..=1650).contains(&longest), "{width}x{height} gave {:?}", picture.dimensions());
    }
}

#[test]
fn labels_are_inside_the_margin_of_their_side() {
    let radiograph = blank(500, 600);
    let boxes = vec![
        labelled(300.0, 50.0, 480.0, 500.0, Some(Side::Left)),
        labelled(20.0, 50.0, 200.0, 500.0, Some(Side::Right)),
        labelled(150.0, 300.0, 400.0, 550.0, None),
    ];
    for mirrored in [false, true] {
        let mut boxes = boxes.clone();
        if mirrored {
            for one in &mut boxes {
                one.bounds = PixelBox::new(500.0 - one.bounds.x1, one.bounds.y0, 500.0 - one.bounds.x0, one.bounds.y1);
            }
        }
        let overlay = Overlay::new(&radiograph, boxes).unwrap();
        let canvas = Canvas::new(1, 1, BACKGROUND);
        let stage = Area::new(MARGIN, HEADER, MARGIN + 917.0, HEADER + 1100.0);
        let placed: Vec<Placed> = overlay.boxes.iter().filter_map(|b| overlay.place(b, stage)).collect();
        let sides = Sides::of(&placed, stage);
        let of_left = if mirrored { Margin::Left } else { Margin::Right };
        assert_eq!(sides.margin(Side::Left), Some(of_left));
        assert_ne!(sides.margin(Side::Right), Some(of_left));
        let labels = overlay.labels(&canvas, &placed, &sides, stage);
        for (margin, labels) in &labels {
            for side in labels.iter().filter_map(|l| placed[l.box_index].subject.side) {
                assert_eq!(sides.margin(side), Some(*margin));
            }
            let height: f32 = labels.iter().map(|l| l.height() + GAP).sum();
            assert!(height <= stage.height() + GAP);
        }
        assert_eq!(labels.iter().map(|(_, l)| l.len()).sum::<usize>(), 3);
    }
}

#[test]
fn it_is_written_as_a_png_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overlay.png");
    let overlay = Overlay::new(&blank(64, 64), vec![]).unwrap();
    overlay.write(&path).unwrap();
    let read = image::open(&path).unwrap().into_rgb8();
    assert_eq!(read.dimensions(), overlay.render().dimensions());
    let error = overlay.write(folder.path()).unwrap_err();
    assert!(matches!(error, OutputError::Folder { .. }), "{error}");
}
