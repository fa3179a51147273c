//! The multimodal prompt (paper, figure S1): what a study's context and a question look like as tokens.

use crate::anatomy::STRUCTURES;

/// Control tokens of a Gemma chat, as small tokenizers place them first.
pub const CONTROL_TOKENS: [&str; 6] = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];

/// The tokens that AnatomiX adds to a language model's vocabulary, in the published order.
pub const ADDED_TOKENS: [&str; 45] = {
    let mut tokens = ["<image>", "<image_start>", "<image_end>", "<box>", "</box>", "<emb>", "</emb>", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "<ref>", "</ref>"];
    let mut i = 0;
    while i < STRUCTURES {
        tokens[7 + i] = OBJECT_TOKENS[i];
        i += 1;
    }
    tokens
};

/// The token that stands for each structure's embedding.
pub const OBJECT_TOKENS: [&str; STRUCTURES] = [
    "<obj_0>", "<obj_1>", "<obj_2>", "<obj_3>", "<obj_4>", "<obj_5>", "<obj_6>", "<obj_7>", "<obj_8>", "<obj_9>",
    "<obj_10>", "<obj_11>", "<obj_12>", "<obj_13>", "<obj_14>", "<obj_15>", "<obj_16>", "<obj_17>", "<obj_18>",
    "<obj_19>", "<obj_20>", "<obj_21>", "<obj_22>", "<obj_23>", "<obj_24>", "<obj_25>", "<obj_26>", "<obj_27>",
    "<obj_28>", "<obj_29>", "<obj_30>", "<obj_31>", "<obj_32>", "<obj_33>", "<obj_34>", "<obj_35>",
];

/// One structure's line of the context.
pub fn context_line_text(structure: usize, grid: [u32; 4], sentence: &str) -> String {
    let [x0, y0, x1, y1] = grid;
    format!("emb:<emb><obj_{structure}></emb> box:<box>({x0},{y0}),({x1},{y1})</box> {sentence}")
}
