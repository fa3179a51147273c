//! The tokens of the prompt.

use crate::anatomy::STRUCTURE_COUNT;

/// Control tokens of a Gemma chat, in the order of their ids in tokenizers that the trainer makes.
pub const CHAT_TOKENS: [&str; 6] = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];

/// For each structure, the token whose embedding is replaced by the structure's visual feature.
pub const OBJECT_TOKENS: [&str; STRUCTURE_COUNT] = [
    "<obj_0>", "<obj_1>", "<obj_2>", "<obj_3>", "<obj_4>", "<obj_5>", "<obj_6>", "<obj_7>", "<obj_8>", "<obj_9>", "<obj_10>", "<obj_11>",
    "<obj_12>", "<obj_13>", "<obj_14>", "<obj_15>", "<obj_16>", "<obj_17>", "<obj_18>", "<obj_19>", "<obj_20>", "<obj_21>", "<obj_22>",
    "<obj_23>", "<obj_24>", "<obj_25>", "<obj_26>", "<obj_27>", "<obj_28>", "<obj_29>", "<obj_30>", "<obj_31>", "<obj_32>", "<obj_33>",
    "<obj_34>", "<obj_35>",
];

/// Tokens that AnatomiX adds to a language model's vocabulary, in the published order.
pub const ADDED_TOKENS: [&str; 9 + STRUCTURE_COUNT] = {
    let mut tokens = [""; 9 + STRUCTURE_COUNT];
    let before = ["<image>", "<image_start>", "<image_end>", "<box>", "</box>", "<emb>", "</emb>"];
    let mut i = 0;
    while i < before.len() {
        tokens[i] = before[i];
        i += 1;
    }
    let mut i = 0;
    while i < STRUCTURE_COUNT {
        tokens[before.len() + i] = OBJECT_TOKENS[i];
        i += 1;
    }
    tokens[7 + STRUCTURE_COUNT] = "<ref>";
    tokens[8 + STRUCTURE_COUNT] = "</ref>";
    tokens
};
