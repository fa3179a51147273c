//! Aids for small models that are trained from nothing. The paper has none of them, because it takes a pretrained language model: contexts
//! from annotations, short contexts, questions whose answers are in the context, and an initialisation that favours copying. Their texts
//! are those of phantoms.

use super::questions::Asked;
use crate::data::samples::record::Image;
use crate::graph::Params;
use crate::models::gemma::{EMBEDDING, GemmaConfig};
use anatomix::parts::prompt::ContextLine;
use anatomix::parts::retrieval::is_finding;
use anatomix::{NormalizedBox, PromptInputs, Structure};
use anatomix_phantom::tasks;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Initial scale of the norms at the end of the base model's residual branches.
const BRANCH_SCALE: f64 = 0.3;

/// Context lines from the annotations. A structure without a box gets a random one, because the perception module gives a box for each
/// structure, too; one without a sentence gets its name.
pub fn annotated_lines(image: &Image, flip: bool, rng: &mut impl Rng) -> Vec<ContextLine> {
    let letterbox = image.letterbox();
    let lines = Structure::all().map(|structure| {
        let known = image.boxes.get(structure.index()).copied().flatten().map(|bounds| letterbox.normalize(&bounds));
        let mut bounds = known.unwrap_or_else(|| {
            let (x, y) = (rng.random_range(0.0..0.9), rng.random_range(0.0..0.9));
            NormalizedBox::new(x, y, x + 0.1, y + 0.1)
        });
        if flip {
            bounds = NormalizedBox::new(1.0 - bounds.x1, bounds.y0, 1.0 - bounds.x0, bounds.y1);
        }
        let sentence = image.sentences.get(structure.index()).cloned().flatten().unwrap_or_else(|| structure.name().into());
        ContextLine { structure, grid: bounds.to_grid(), sentence }
    });
    lines.collect()
}

/// Keeps the lines of structures with findings and of a few random others.
pub fn shorten(lines: &mut Vec<ContextLine>, image: &Image, rng: &mut impl Rng) {
    let kept: Vec<usize> = (0..lines.len()).sample(rng, 8);
    lines.retain(|line| {
        let i = line.structure.index();
        kept.contains(&i) || image.sentences.get(i).and_then(Option::as_deref).is_some_and(is_finding)
    });
}

/// A question whose answer is in the context, of which these are the inputs: a structure's box, its sentence, or whether it is healthy.
pub fn look_up(lines: &[ContextLine], inputs: PromptInputs, rng: &mut ChaCha8Rng) -> Asked {
    let kinds = match (inputs.sentences, inputs.boxes) {
        (true, true) => 0..4,
        (true, false) => 0..2,
        (false, _) => 2..4,
    };
    match (rng.random_range(kinds), lines.choose(rng)) {
        (0, Some(line)) => asked(tasks::open_question(line.structure, line.sentence.clone(), rng)),
        (1, Some(line)) => asked(tasks::health_question(line.structure, !is_finding(&line.sentence))),
        _ => look_up_box(lines, rng),
    }
}

/// A question for the box of a structure in the context.
pub fn look_up_box(lines: &[ContextLine], rng: &mut ChaCha8Rng) -> Asked {
    let (structure, [x0, y0, x1, y1]) = lines.choose(rng).map_or((Structure::HEART, [0; 4]), |line| (line.structure, line.grid));
    asked(tasks::anatomy_question(structure, &format!("<box>({x0},{y0}),({x1},{y1})</box>"), rng))
}

fn asked(drawn: tasks::Sample) -> Asked {
    Asked::alone(drawn.question, drawn.answer)
}

/// Initialises the base model so that attention copies from tokens similar to the current one (after Trockman and Kolter, 2023): key
/// projections equal query projections, output projections are the transpose of value projections, and residual branches are small
/// relative to embeddings. Most answers are copied from the context, which a short training does not learn from a random start.
pub fn initialise_copying(language: &GemmaConfig, params: &Params) {
    for layer in 0..language.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let spec = language.attention(layer);
        let group = spec.heads / spec.kv_heads;
        let heads = |part: &str, count: i64| params.get(&name(part)).map(|w| w.reshape([count, spec.head_dim, -1]));
        let (Some(queries), Some(values)) = (heads("self_attn.q_proj", spec.heads), heads("self_attn.v_proj", spec.kv_heads)) else {
            continue;
        };
        params.insert(&name("self_attn.k_proj"), queries.slice(0, 0, spec.heads, group).flatten(0, 1).contiguous());
        let outputs = values.repeat_interleave_self_int(group, 0, None).flatten(0, 1).tr().contiguous();
        params.insert(&name("self_attn.o_proj"), outputs);
        for norm in ["post_attention_layernorm", "post_feedforward_layernorm"] {
            params.insert(&name(norm), Tensor::full([language.hidden_size], BRANCH_SCALE - 1.0, (Kind::Float, params.device())));
        }
    }
    if let Some(mut table) = params.get(EMBEDDING) {
        let deviation = (language.hidden_size as f64).powf(-0.5);
        params.insert(EMBEDDING, table.normal_(0.0, deviation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn only_what_the_context_holds_is_looked_up() {
        let line = ContextLine { structure: Structure::HEART, grid: [1, 2, 30, 40], sentence: "Heart shows nothing but this.".into() };
        let answers = |inputs: &str| {
            let inputs = PromptInputs::try_from(inputs.to_string()).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let answers: Vec<String> = (0..40).map(|_| look_up(std::slice::from_ref(&line), inputs, &mut rng).answer).collect();
            let boxes = answers.iter().filter(|answer| answer.contains("(1,2),(30,40)")).count();
            (boxes, answers.len() - boxes)
        };
        assert_eq!((answers("VB"), answers("VS")), ((40, 0), (0, 40)));
        assert!(answers("VOSB").0 > 10 && answers("VOSB").1 > 10);
    }
}
