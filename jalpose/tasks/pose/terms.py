"""Whose the pictures of the data sets of poses are, and how they may be shown."""

from jalpose.tasks.pictures import Terms

TERMS = {
    "lsp": Terms(
        "LSP/LSPET",
        "Photographs: Leeds Sports Pose and its extension, S. Johnson and "
        "M. Everingham; research use, no terms stated.",
        "Leeds Sports Pose (BMVC 2010) and Leeds Sports Pose Extended (CVPR 2011) "
        "were gathered and annotated by S. Johnson and M. Everingham from Flickr, "
        "whose photographers and sitters keep their rights. The authors state no "
        "terms; they are shown here for research. Whoever passes this page on passes "
        "photographs of people on: --no-images makes one without.",
    ),
    "mpii": Terms(
        "MPII",
        "Photographs: MPII Human Pose, M. Andriluka, L. Pishchulin, P. Gehler and "
        "B. Schiele; research use.",
        "MPII Human Pose (CVPR 2014) was gathered by M. Andriluka, L. Pishchulin, "
        "P. Gehler and B. Schiele from YouTube videos and is given out for research; "
        "its annotations are under the Simplified BSD licence. Whoever passes this "
        "page on passes photographs of people on: --no-images makes one without.",
    ),
    "photos": Terms(
        "own images",
        "Own images: whoever runs this says under what terms they may be shown.",
        "The images are those of whoever ran this; whoever passes this page on passes "
        "them on: --no-images makes one without.",
    ),
    "coco": Terms(
        "COCO",
        "Photographs: COCO, T.-Y. Lin and others, from Flickr; each under the terms of "
        "its photographer.",
        "COCO (ECCV 2014) was gathered by T.-Y. Lin and others from Flickr, whose "
        "photographers and sitters keep their rights; its annotations are under CC BY "
        "4.0. Whoever passes this page on passes photographs of people on: --no-images "
        "makes one without.",
    ),
    "figures": Terms(
        "drawn figures",
        "Drawn figures: nobody is shown.",
        "The figures are drawn by jalpose: nobody is shown, no terms.",
    ),
}
