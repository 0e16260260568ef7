"""The field's terms, with their English forms and the Korean words that the page uses.

The Korean words are those of Korean papers and engineers, often the English term itself. A test checks every text against this list: to
change a term, change it here first, then wherever the test fails.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Term:
    """One term: its English forms, its Korean words (the first is the default), and patterns of Korean words that must not be used for it."""

    english: tuple[str, ...]
    korean: tuple[str, ...]
    instead_of: tuple[str, ...] = ()


GLOSSARY: tuple[Term, ...] = (
    # the model
    Term(("layer", "layers"), ("레이어",), ("(?<![계단심])층",)),
    Term(("block", "blocks"), ("블록",), ("블럭",)),
    Term(("attention head", "attention heads"), ("어텐션 헤드",), ("주의 헤드", "주의 머리")),
    Term(("neuron", "neurons"), ("뉴런",), ("신경 세포",)),
    Term(("projection", "projections"), ("프로젝션",), ("투영", "사영")),
    Term(("norm", "norms"), ("노름", "정규화")),  # a vector's length is its 노름, a layer's norms are its 정규화
    Term(("weight", "weights"), ("가중치",), ("무게",)),
    Term(("parameter", "parameters"), ("파라미터",), ("매개변수", "모수")),
    Term(("coefficient",), ("계수",)),
    Term(("hidden state", "hidden states"), ("은닉 상태",), ("숨은 상태", "숨겨진 상태")),
    Term(("final state",), ("최종 은닉 상태",), ("마지막 상태",)),
    Term(("residual stream",), ("잔차 스트림",), ("잔차 흐름", "나머지 흐름")),
    Term(("attention sink",), ("어텐션 싱크",)),
    Term(("logits",), ("로짓",)),
    Term(("token", "tokens"), ("토큰",)),
    Term(("tokenizer",), ("토크나이저",), ("토큰화기",)),
    Term(("kv cache",), ("KV 캐시",)),
    Term(("checkpoint", "checkpoints"), ("체크포인트",), ("검사점",)),
    Term(("number format", "dtype"), ("자료형",), ("수 형식",)),
    Term(("quantised", "unquantised"), ("양자화",)),
    Term(("dequantised", "dequantising"), ("역양자화",), ("양자화 푸는", "양자화를 푸")),
    Term(("fingerprint",), ("핑거프린트",), ("지문",)),
    # changes of a model
    Term(("pruning", "pruned"), ("프루닝",), ("가지치기", "가지 치기")),
    Term(("fold", "folds", "folded", "folding", "merge", "merged"), ("병합",), ("(?<![직간인])접[기히힌힘힙은는을어었습혀]", "합치")),
    Term(("plan", "plans"), ("플랜",), ("계획",)),
    Term(("t map",), ("T 맵",), ("지도",)),
    Term(("threshold",), ("임계값",), ("문턱", "임계치")),
    Term(("seam", "seams"), ("이음매",), ("솔기",)),
    Term(("survivor", "survivors"), ("잔존 레이어",), ("생존자",)),
    Term(("repair", "repairs", "repaired", "repairing"), ("복구",), ("고치기", "고친", "고쳤", "고쳐", "고치는", "보정")),
    Term(("hand-made", "by hand"), ("수동",), ("손수",)),
    Term(("accepted",), ("채택",), ("받아들",)),
    Term(("rejected",), ("기각",), ("물리[치친침]",)),
    # search
    Term(("search", "searched", "searching"), ("탐색",), ("찾기",)),
    Term(("objective",), ("목적 함수",)),
    Term(("baseline",), ("베이스라인",), ("기준 계획", "기준선")),
    Term(("greedy",), ("그리디",), ("탐욕",)),
    Term(("beam",), ("빔",)),
    Term(("swap",), ("교환",), ("맞바꾸",)),
    Term(("block influence",), ("블록 영향도(BI)",), ("영향력",)),
    Term(("ablation", "ablations"), ("어블레이션",), ("절제",)),
    # evaluation
    Term(("calibration",), ("캘리브레이션",), ("보정",)),
    Term(("practice texts", "practice text"), ("연습 텍스트",), ("연습 문장",)),
    Term(("evaluation texts",), ("평가 텍스트",), ("평가 문장",)),
    Term(("held-out",), ("홀드아웃",), ("따로 둔", "따로 둡")),
    Term(("text", "texts"), ("텍스트",)),
    Term(("prompt", "prompts"), ("프롬프트",), ("글머리",)),
    Term(("context",), ("컨텍스트", "윈도우"), ("문맥",)),  # a context's worth of tokens at a time is a window
    Term(("window", "windows"), ("윈도우",), ("창 ",)),
    Term(("stride",), ("스트라이드",), ("보폭", "걸음")),
    Term(("perplexity",), ("퍼플렉시티", "PPL"), ("혼란도", "당혹도", "복잡도")),
    Term(("kl divergence",), ("KL 발산",), ("쿨백",)),
    Term(("top-1 agreement",), ("Top-1 일치율",), ("1위 낱말",)),
    Term(("similarity",), ("유사도",), ("닮음", "닮[은았]")),
    Term(("cosine",), ("코사인",)),
    Term(("angular",), ("각거리",)),
    Term(("sampled",), ("샘플링",), ("표본",)),
    Term(("decode speed", "decoding"), ("디코딩",)),
    Term(("task", "tasks"), ("태스크",), ("과제",)),
)
