//! The filters of PNG rows: each byte was stored as its difference from a prediction of its neighbours.

/// Undoes the filter of a row, in place; `None` if there is no such filter. Pixels have `pixel` bytes. Before the first row there is one of
/// zeros.
pub(super) fn undo(filter: u8, pixel: usize, above: &[u8], row: &mut [u8]) -> Option<()> {
    match filter {
        0 => {}
        1 => (pixel..row.len()).for_each(|i| row[i] = row[i].wrapping_add(row[i - pixel])),
        2 => row.iter_mut().zip(above).for_each(|(value, up)| *value = value.wrapping_add(*up)),
        3 => {
            for i in 0..row.len() {
                let left = if i < pixel { 0 } else { u16::from(row[i - pixel]) };
                row[i] = row[i].wrapping_add(((left + u16::from(above[i])) / 2) as u8);
            }
        }
        4 => match pixel {
            1 => paeth::<1>(above, row),
            2 => paeth::<2>(above, row),
            3 => paeth::<3>(above, row),
            4 => paeth::<4>(above, row),
            6 => paeth::<6>(above, row),
            8 => paeth::<8>(above, row),
            _ => return None,
        },
        _ => return None,
    }
    Some(())
}

fn paeth<const PIXEL: usize>(above: &[u8], row: &mut [u8]) {
    let (mut left, mut corner) = ([0; PIXEL], [0; PIXEL]);
    for (values, above) in row.as_chunks_mut::<PIXEL>().0.iter_mut().zip(above.as_chunks::<PIXEL>().0) {
        for k in 0..PIXEL {
            let up = i16::from(above[k]);
            values[k] = values[k].wrapping_add(predicted(left[k], up, corner[k]));
            (left[k], corner[k]) = (i16::from(values[k]), up);
        }
    }
}

/// The neighbour nearest to `left + up - corner`. Three times the corner, less both others, tells which one that is.
fn predicted(left: i16, up: i16, corner: i16) -> u8 {
    let (low, high) = (left.min(up), left.max(up));
    let side = 3 * corner - left - up;
    let inner = if high <= side { low } else { corner };
    (if side <= low { high } else { inner }) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_those_of_the_standard() {
        for (left, up) in (0..256i16).step_by(5).flat_map(|left| (0..256i16).map(move |up| (left, up))) {
            for corner in 0..256i16 {
                let estimate = left + up - corner;
                // The first of the nearest, in this order.
                let nearest = [left, up, corner].into_iter().min_by_key(|neighbour| (estimate - neighbour).abs());
                assert_eq!(Some(i16::from(predicted(left, up, corner))), nearest, "{left} {up} {corner}");
            }
        }
    }
}
