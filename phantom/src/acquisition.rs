//! Acquisition: scatter, noise, tone curve, markers and collimation turn attenuation into a displayed picture.

use crate::layer::Layer;
use crate::scene::Scene;
use ab_glyph::{FontRef, PxScale};
use image::{GrayImage, Luma};
use libm::{powf, sinf};
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

/// Font of the marker letters, the same as in the SDK's overlays.
const FONT: &[u8] = anatomix::parts::FONT;

pub(crate) fn expose(mut picture: Layer, scene: &Scene, rng: &mut impl Rng) -> Layer {
    let (width, height) = (picture.width, picture.height);
    let unit = scene.frame.pixels();

    // Scatter adds a blurred copy; a console's edge enhancement subtracts one.
    let mut veil = picture.clone();
    veil.blur(rng.random_range(0.25..0.6) * unit);
    picture.add(&veil, rng.random_range(-0.35..0.10));
    if rng.random_bool(0.4) {
        let mut soft = picture.clone();
        soft.blur(rng.random_range(0.02..0.06) * unit);
        let amount = rng.random_range(0.2..1.0);
        for (value, low) in picture.data.iter_mut().zip(&soft.data) {
            *value += amount * (*value - low);
        }
    }
    picture.blur(rng.random_range(0.0..1.3));

    let (low, high) = quantiles(&picture, 0.01, 0.995);
    let scale = 1.0 / (high - low).max(1e-3);
    picture.map(|v| (v - low) * scale);

    // The heel effect and uneven exposure change brightness slowly across the picture.
    let (sx, sy) = (rng.random_range(-0.12..0.12), rng.random_range(-0.15..0.15));
    let mut uneven = Layer::noise(width, height, unit * 1.5, 1, rng);
    for y in 0..height {
        for x in 0..width {
            let i = (y * width + x) as usize;
            uneven.data[i] = 0.05 * uneven.data[i] + sx * (x as f32 / width as f32 - 0.5) + sy * (y as f32 / height as f32 - 0.5);
        }
    }
    picture.add(&uneven, 1.0);

    let quantum = rng.random_range(0.003f32..0.03);
    for value in &mut picture.data {
        let noise: f32 = StandardNormal.sample(rng);
        *value += quantum * noise * (0.5 + value.clamp(0.0, 1.0));
    }
    let gamma = rng.random_range(0.6f32..1.7);
    let (black, white) = (rng.random_range(-0.06f32..0.05), rng.random_range(0.93f32..1.08));
    picture.map(|v| powf(((v - black) / (white - black)).clamp(0.0, 1.0), gamma));
    if rng.random_bool(0.06) {
        // A stationary anti-scatter grid leaves fine lines.
        let (pitch, depth) = (rng.random_range(3.0f32..6.0), rng.random_range(0.01..0.03));
        for y in 0..height {
            let line = depth * sinf(y as f32 / pitch * std::f32::consts::TAU);
            for x in 0..width {
                picture.data[(y * width + x) as usize] += line;
            }
        }
    }
    markers(&mut picture, scene, rng);
    collimate(&mut picture, rng);
    picture.map(|v| v.clamp(0.0, 1.0));
    picture
}

fn quantiles(picture: &Layer, low: f32, high: f32) -> (f32, f32) {
    let mut values: Vec<f32> = picture.data.iter().step_by(7).copied().collect();
    values.sort_by(f32::total_cmp);
    let at = |q: f32| values[((values.len() - 1) as f32 * q) as usize];
    (at(low), at(high))
}

/// Draws the markers: L or R near a shoulder, AP or PA near the top. Letters in a mirrored picture may be mirrored or not. For a scene
/// without markers the same numbers are drawn at random, so that the rest of the picture is the same.
fn markers(picture: &mut Layer, scene: &Scene, rng: &mut impl Rng) {
    let Ok(font) = FontRef::try_from_slice(FONT) else { return };
    let (width, height) = (picture.width as f32, picture.height as f32);
    let mut paint = |text: &str, x: f32, y: f32, size: f32, brightness: f32, flip: bool| {
        if !scene.markers {
            return;
        }
        let side = (size * 1.4 * text.len() as f32) as u32 + 2;
        let mut stamp = GrayImage::new(side, (size * 1.3) as u32 + 2);
        imageproc::drawing::draw_text_mut(&mut stamp, Luma([255]), 1, 0, PxScale::from(size), &font, text);
        for (i, j, pixel) in stamp.enumerate_pixels() {
            let i = if flip { side - 1 - i } else { i };
            let (px, py) = (x as i64 + i64::from(i), y as i64 + i64::from(j));
            if pixel.0[0] > 0 && (0..i64::from(picture.width)).contains(&px) && (0..i64::from(picture.height)).contains(&py) {
                let value = &mut picture.data[(py * i64::from(picture.width) + px) as usize];
                let cover = f32::from(pixel.0[0]) / 255.0;
                *value += cover * (brightness - *value);
            }
        }
    };
    if rng.random_bool(0.6) {
        let size = height * rng.random_range(0.035..0.07);
        // The letter is random, so that a network cannot learn the side from it.
        let letter = if rng.random_bool(0.5) { "L" } else { "R" };
        let left_edge = rng.random_bool(0.5);
        let x = if left_edge { rng.random_range(0.01..0.10) } else { rng.random_range(0.86..0.95) } * width;
        paint(
            letter,
            x,
            height * rng.random_range(0.02..0.30),
            size,
            rng.random_range(0.75..1.0),
            scene.frame.mirrored && rng.random_bool(0.5),
        );
    }
    if rng.random_bool(0.3) {
        let text = if scene.ap_view { "AP" } else { "PA" };
        let size = height * rng.random_range(0.025..0.05);
        paint(text, width * rng.random_range(0.02..0.85), height * rng.random_range(0.01..0.06), size, rng.random_range(0.7..1.0), false);
    }
}

/// Draws a collimator's border of constant value, mostly black, sometimes white.
fn collimate(picture: &mut Layer, rng: &mut impl Rng) {
    let (width, height) = (picture.width, picture.height);
    if rng.random_bool(0.35) {
        let level = if rng.random_bool(0.85) { rng.random_range(0.0..0.05) } else { rng.random_range(0.9..1.0) };
        let mut edge = |max: f32| if rng.random_bool(0.5) { rng.random_range(0.0..max) } else { 0.0 };
        let (left, right) = ((edge(0.05) * width as f32) as u32, ((1.0 - edge(0.05)) * width as f32) as u32);
        let (top, bottom) = ((edge(0.05) * height as f32) as u32, ((1.0 - edge(0.05)) * height as f32) as u32);
        for y in 0..height {
            for x in 0..width {
                if x < left || x >= right || y < top || y >= bottom {
                    picture.data[(y * width + x) as usize] = level;
                }
            }
        }
    }
}
