//! Losses of the stage `apm` (paper, eq. 2 to 9 and S1 to S4).

use tch::{Kind, Reduction, Tensor};

/// L1 and generalised-IoU loss of boxes `[B, 36, 4]` (centre and size), each relative to its own target.
///
/// `present` `[B, 36]` is 1 for a box with a target, otherwise 0. Losses are sums over the boxes with targets, divided by `count`, the
/// number of these in all images of the step.
pub fn boxes(predicted: &Tensor, target: &Tensor, present: &Tensor, count: &Tensor) -> (Tensor, Tensor) {
    let l1 = ((predicted - target).abs().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float) * present).sum(Kind::Float) / count;
    let giou = ((generalised_iou(predicted, target) * -1.0 + 1.0) * present).sum(Kind::Float) / count;
    (l1, giou)
}

/// Sum of the binary cross-entropies of the labels `[B, 14]` that are known.
pub fn labels(logits: &Tensor, labels: &Tensor) -> Tensor {
    let known = labels.ge(0.0);
    let (logits, labels) = (logits.masked_select(&known), labels.masked_select(&known));
    logits.binary_cross_entropy_with_logits(&labels, None::<&Tensor>, None::<&Tensor>, Reduction::Sum)
}

/// Generalised IoU of each box in `a` with the box at the same index in `b`; boxes are given by centre and size.
pub fn generalised_iou(a: &Tensor, b: &Tensor) -> Tensor {
    let corners = |x: &Tensor| {
        let (center, half) = (x.narrow(-1, 0, 2), x.narrow(-1, 2, 2) / 2.0);
        (&center - &half, center + half)
    };
    let area = |low: &Tensor, high: &Tensor| (high - low).clamp_min(0.0).prod_dim_int(-1, false, Kind::Float);
    let ((a0, a1), (b0, b1)) = (corners(a), corners(b));
    let intersection = area(&a0.maximum(&b0), &a1.minimum(&b1));
    let union = area(&a0, &a1) + area(&b0, &b1) - &intersection;
    let hull = area(&a0.minimum(&b0), &a1.maximum(&b1));
    intersection / union.clamp_min(1e-9) - (&hull - &union) / hull.clamp_min(1e-9)
}

/// Soft contrastive loss (paper, eq. S1 to S4) between object embeddings `[N, E]` and projected sentences `[N, E]`. The targets are the
/// softmax over similarities between the frozen sentence embeddings `[N, D]`.
pub fn contrastive(objects: &Tensor, projected: &Tensor, frozen: &Tensor, temperature: f64) -> Tensor {
    let (u, v, s) = (normalize(objects), normalize(projected), normalize(frozen));
    let target = (s.matmul(&s.tr()) / temperature).softmax(-1, Kind::Float);
    let logits = u.matmul(&v.tr()) / temperature;
    let divergence = |logits: &Tensor, target: &Tensor| {
        let rows = logits.size()[0] as f64;
        // KL(target || softmax(logits)), averaged over rows, with 0 log 0 = 0.
        let entropy = (target * target.clamp_min(1e-30).log()).sum(Kind::Float);
        (entropy - (target * logits.log_softmax(-1, Kind::Float)).sum(Kind::Float)) / rows
    };
    // The target of the columns is the transpose, which is not normalised again, as published.
    (divergence(&logits, &target) + divergence(&logits.tr(), &target.tr())) / 2.0
}

/// CLIP's loss with hard targets (an ablation of the paper, section S5).
pub fn clip(objects: &Tensor, projected: &Tensor, temperature: f64) -> Tensor {
    let logits = normalize(objects).matmul(&normalize(projected).tr()) / temperature;
    let own = Tensor::arange(logits.size()[0], (Kind::Int64, logits.device()));
    (logits.cross_entropy_for_logits(&own) + logits.tr().cross_entropy_for_logits(&own)) / 2.0
}

/// Scales vectors in the last dimension to norm 1.
pub fn normalize(x: &Tensor) -> Tensor {
    x / x.square().sum_dim_intlist([-1i64].as_slice(), true, x.kind()).sqrt().clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giou_of_known_boxes() {
        let a = Tensor::from_slice(&[0.25f32, 0.25, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2]).reshape([1, 2, 4]);
        let b = Tensor::from_slice(&[0.75f32, 0.25, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2]).reshape([1, 2, 4]);
        let giou = Vec::<f32>::try_from(generalised_iou(&a, &b).flatten(0, -1)).unwrap();
        // The first boxes are side by side: they do not overlap and fill their enclosing box. The second are equal.
        assert!(giou[0].abs() < 1e-6 && (giou[1] - 1.0).abs() < 1e-6, "{giou:?}");
        let present = Tensor::from_slice(&[1f32, 0.0]).reshape([1, 2]);
        let (l1, loss) = boxes(&a, &b, &present, &present.sum(Kind::Float));
        assert!((l1.double_value(&[]) - 0.5).abs() < 1e-6);
        assert!((loss.double_value(&[]) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn contrastive_is_smaller_if_similarities_agree() {
        tch::manual_seed(1);
        let frozen = Tensor::randn([6, 8], (Kind::Float, tch::Device::Cpu));
        let other = Tensor::randn([6, 8], (Kind::Float, tch::Device::Cpu));
        let same = contrastive(&frozen, &frozen, &frozen, 0.5).double_value(&[]);
        let different = contrastive(&other, &frozen, &frozen, 0.5).double_value(&[]);
        // For equal embeddings the rows' divergence is 0; the columns' is not, because their target is not normalised.
        assert!(same < different, "{same} {different}");
        let rows = {
            let s = normalize(&frozen);
            let p = (s.matmul(&s.tr()) / 0.5).softmax(-1, Kind::Float);
            (&p * (p.log() - p.log())).sum(Kind::Float).double_value(&[])
        };
        assert_eq!(rows, 0.0);
    }

    #[test]
    fn unknown_labels_are_in_no_loss() {
        let logits = Tensor::from_slice(&[0.5f32, -1.0, 2.0, 9.0]).reshape([2, 2]).set_requires_grad(true);
        let loss = labels(&logits, &Tensor::from_slice(&[1f32, 0.0, -1.0, -1.0]).reshape([2, 2]));
        let expected = (1.0 + (-0.5f64).exp()).ln() + (1.0 + (-1.0f64).exp()).ln();
        assert!((loss.double_value(&[]) - expected).abs() < 1e-6);
        loss.backward();
        assert_eq!(Vec::<f32>::try_from(logits.grad().get(1)).unwrap(), [0.0, 0.0]);
        let none = labels(&logits, &Tensor::full([2, 2], -1, (Kind::Float, tch::Device::Cpu)));
        assert_eq!(none.double_value(&[]), 0.0);
    }
}
