//! PNG and JPEG.
//!
//! PNG is read in rows, JPEG in one piece. Both become grey values of one or two bytes.

mod grey;
mod jpeg;
mod orientation;
mod picture;
mod png;

use super::decoded::Decoded;
use super::{Header, RadiographError, ReadOptions};
use crate::saved::is_saved_study;
use image::ImageFormat;
use picture::Raster;

pub(super) fn decode(bytes: &[u8], name: &str, options: &ReadOptions) -> Result<Decoded<'static>, RadiographError> {
    if options.window != 1 {
        let message = format!("window {} was chosen, but only DICOM files have windows; leave the option out", options.window);
        return Err(RadiographError::Unsupported { name: name.into(), message });
    }
    let Raster { width, height, samples, noticed } = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => png::decode(bytes, name)?,
        Ok(ImageFormat::Jpeg) => jpeg::decode(bytes, name)?,
        _ if is_saved_study(bytes) => return Err(RadiographError::SavedStudy { name: name.into() }),
        _ => return Err(RadiographError::UnknownFormat { name: name.into() }),
    };
    let levels = samples.depth.shares();
    let source = Err("it is not a DICOM file, so its patient and study are unknown; give the DICOM file that it was made from".into());
    Ok(Decoded { width, height, samples, levels, header: Header::default(), source, noticed })
}

#[cfg(test)]
mod tests {
    use crate::Radiograph;
    use image::{DynamicImage, GrayImage, ImageFormat, Luma, RgbImage, RgbaImage};
    use std::io::Cursor;

    fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn grey_colour_and_alpha_agree() {
        let grey = GrayImage::from_fn(40, 50, |x, y| Luma([(x * 3 + y) as u8]));
        let open = |image: DynamicImage, format| Radiograph::from_bytes(&encode(&image, format), "a").unwrap();
        let png = open(grey.clone().into(), ImageFormat::Png);
        let jpeg = open(grey.clone().into(), ImageFormat::Jpeg);
        let value = |x, y| grey.get_pixel(x, y).0[0];
        let colour = RgbImage::from_fn(40, 50, |x, y| image::Rgb([value(x, y); 3]));
        let alpha = RgbaImage::from_fn(40, 50, |x, y| {
            let v = value(x, y);
            image::Rgba([v, v, v, if x < 20 { 255 } else { 0 }])
        });
        let alpha = open(alpha.into(), ImageFormat::Png);
        let colour_jpeg = open(colour.clone().into(), ImageFormat::Jpeg);
        let wide = DynamicImage::from(grey.clone()).into_luma16();
        let same = [open(colour.into(), ImageFormat::Png), open(wide.into(), ImageFormat::Png)];
        for y in 0..50 {
            for x in 0..40 {
                let value = png.intensities().unwrap()[[y, x]];
                assert_eq!(value, grey.get_pixel(x as u32, y as u32).0[0] as f32 / 255.0);
                assert!([&jpeg, &colour_jpeg].iter().all(|jpeg| (jpeg.intensities().unwrap()[[y, x]] - value).abs() < 0.03));
                assert!(same.iter().all(|image| (image.intensities().unwrap()[[y, x]] - value).abs() < 2e-5));
                let expected = if x < 20 { value } else { 0.0 };
                assert!((alpha.intensities().unwrap()[[y, x]] - expected).abs() < 1e-3);
            }
        }
    }
}
