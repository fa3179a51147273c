//! Models that judge texts: BERTScore, CheXbert and RadGraph, with parameters that the user has.

pub mod bert_score;
pub mod chexbert;
pub mod hidden;
pub mod radgraph;
