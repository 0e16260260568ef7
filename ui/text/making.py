"""Texts of the tab groups, of the current plan's strip, and of Recover."""

TEXT: dict[str, tuple[str, str]] = {
    # groups of tabs
    "group_look": ("Look", "살펴보기"),
    "group_cut": ("Cut", "자르기"),
    "group_judge": ("Judge", "평가"),
    "group_recover": ("Recover", "회복"),
    "group_export": ("Export", "내보내기"),
    "importance": ("Importance", "중요도"),
    "widths": ("Width", "폭"),
    "masks": ("Weights", "가중치"),
    "recover": ("Recover", "회복"),
    # the strip of the plan
    "making_depth": ("{depth} of {source} layers", "레이어 {source}개 중 {depth}개"),
    "making_heads": ("{count} of {all} query heads", "쿼리 헤드 {all}개 중 {count}개"),
    "making_neurons": ("{count} of {all} neurons", "뉴런 {all}개 중 {count}개"),
    "making_channels": ("{count} of {all} channels", "채널 {all}개 중 {count}개"),
    "making_refit": ("solved again", "다시 풂"),
    "making_bias": ("biases for what was cut", "잘라 낸 부분의 평균을 바이어스로"),
    "making_redistributed": ("pruned heads redistributed", "프루닝한 헤드를 재분배"),
    "making_learned": ("learned while it was chosen", "선택과 함께 학습"),
    "making_repaired": ("seams repaired: {count} ({kind})", "복구한 이음매 {count}곳 ({kind})"),
    "making_solved": ("layers after seams solved again", "이음매 뒤의 레이어를 다시 풂"),
    "making_masks": ("{share} % of the weights are zero ({method})", "가중치의 {share} %가 0 ({method})"),
    "making_whole": ("full width", "전체 폭"),
    "making_dense": ("no mask", "마스크 없음"),
    "making_size": ("{parameters} M parameters, {bytes}", "파라미터 {parameters} M, {bytes}"),
    "making": ("The plan being made", "만들고 있는 플랜"),
    # Recover
    "recover_read": ("Give back what pruning lost, without training: each repair is fitted on practice texts, judged on others, and kept only where text that is held out improves.", "프루닝으로 잃은 것을 학습 없이 되살립니다. 복구는 연습 텍스트로 맞추고 다른 텍스트로 평가하며, 홀드아웃 텍스트에서 나아질 때만 남깁니다."),
    "repair_refit": ("Solve the layers after a seam again", "이음매 뒤의 레이어 다시 풀기"),
}  # fmt: skip
