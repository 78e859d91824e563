"""The paper's figures, drawn by the code of this project."""
