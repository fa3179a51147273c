//! Where a patch is: DETR's sine encoding (Carion et al. 2020).

/// DETR's sine encoding, normalised to 2 pi, temperature 10000, y before x, positions counted from 1: `[P, D]`.
pub fn sine_positions(grid: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let mut out = Vec::with_capacity(grid * grid * width);
    let sine = |position: usize, channel: usize| {
        let at = (position + 1) as f64 / (grid as f64 + 1e-6) * std::f64::consts::TAU;
        let angle = at / libm::pow(10000.0, 2.0 * (channel / 2) as f64 / half as f64);
        (if channel.is_multiple_of(2) { libm::sin(angle) } else { libm::cos(angle) }) as f32
    };
    for y in 0..grid {
        for x in 0..grid {
            out.extend((0..half).map(|c| sine(y, c)));
            out.extend((0..half).map(|c| sine(x, c)));
        }
    }
    out
}
